"""`r1distill report RUN`: report.html, one file that shows a run to a person, every trace included."""
