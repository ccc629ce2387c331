"""Rendering of saliency maps and captions on images."""
