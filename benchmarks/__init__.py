"""Measurements, side by side with the peer in one run. `make bench` runs the ones that need no services."""
