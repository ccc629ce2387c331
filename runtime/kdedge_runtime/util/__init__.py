"""Shared utilities for arrays, files, images, text and timing."""
