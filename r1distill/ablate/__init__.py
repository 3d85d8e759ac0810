"""What a choice of traces is worth: equal-token subsets, each taught with several seeds, scored and compared."""
