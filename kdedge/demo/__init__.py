"""The demonstration on rendered images."""
