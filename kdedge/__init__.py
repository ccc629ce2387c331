"""Distill a small classifier that looks where its teacher looks, and ship it with its explanation."""

__version__ = "0.1.0"
