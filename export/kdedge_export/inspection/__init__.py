"""Inspection of a model file: layers, cost and layer attribution. It does not import torch."""
