"""`r1distill doctor`: everything that can be known to be wrong before an hour is spent. No weights are loaded."""
