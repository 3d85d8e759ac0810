"""`r1distill show RUN`: traces with their problem, verdict and tags, and the funnel, for a person at a terminal."""
