"""Main loop: frames, predictions and sinks."""
