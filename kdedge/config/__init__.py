"""Configuration of a training run: requested settings, recipe files, and defaults derived from data and device."""
