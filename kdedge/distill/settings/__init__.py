"""What a run does with its data: asked for by the user, kept in recipe files, planned from the data."""
