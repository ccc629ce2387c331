"""Which values of a graph's tensors lie over which part of the picture, and which of these a map looks at."""
