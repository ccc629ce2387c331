"""Readers of dataset layouts: class folders, Frigate, torchvision datasets, WebDataset shards."""
