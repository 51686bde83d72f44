"""The version of this package: one place, which everything may import."""

__version__ = "0.1.0.dev0"
