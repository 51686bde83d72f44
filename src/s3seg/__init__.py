"""Say what you are looking for, get its masks."""

__version__ = "0.1.0.dev0"
