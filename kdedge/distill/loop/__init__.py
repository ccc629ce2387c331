"""Training loop: epochs, steps, validation and checkpoints."""
