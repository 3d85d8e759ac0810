"""Sampling: the same for a teacher that writes traces and for a student that is scored."""
