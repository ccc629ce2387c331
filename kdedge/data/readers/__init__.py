"""Readers of dataset layouts: class folders, torchvision datasets, WebDataset shards."""
