"""Scores of a run in the forms of other tools: `r1distill export RUN --to lm-eval|lighteval|model-index`."""
