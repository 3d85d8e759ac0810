"""r1distill: distil the reasoning of a large teacher model into small students."""

__version__ = "0.1.0"
