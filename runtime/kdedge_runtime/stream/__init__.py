"""The loop from frames to predictions to sinks."""
