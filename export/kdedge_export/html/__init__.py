"""What every page of kdedge is made of: a frame, words and numbers, pictures; no script, nothing loaded."""
