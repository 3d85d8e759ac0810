"""Evaluation: generation on a benchmark, with the same sampler, journal and verifier as for traces."""
