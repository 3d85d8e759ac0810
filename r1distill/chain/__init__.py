"""Students that teach: a chain from the teacher over assistants to the student, and a student on its own samples."""
