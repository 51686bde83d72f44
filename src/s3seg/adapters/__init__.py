"""One file or folder per vendor; each class satisfies a port. Adapters do not import each other."""
