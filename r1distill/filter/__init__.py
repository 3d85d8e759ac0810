"""Filtering: which traces are taught, each drop with its one named reason."""
