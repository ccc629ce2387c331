"""Spatial coordinates of a graph's tensors, and the selection of target features."""
