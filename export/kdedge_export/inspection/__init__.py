"""Look into a model file: its layers and their cost, and how it came to an answer. Nothing here needs torch."""
