"""Compute environment of a run: device, precision and processes."""
