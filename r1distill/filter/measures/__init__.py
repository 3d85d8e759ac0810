"""What is measured on every trace before anything is decided: pure functions of (Problem, Trace, Verdict), and of columns."""
