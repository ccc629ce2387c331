"""Settings of a run: user options, recipe files, and defaults from the data."""
