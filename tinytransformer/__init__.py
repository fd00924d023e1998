"""A Transformer written out to its last gradient, over NumPy or CuPy."""

__version__ = "0.1.0"
