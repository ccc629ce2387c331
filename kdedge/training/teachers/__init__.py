"""Teacher models and how their targets are obtained: computed online or read from a cache."""
