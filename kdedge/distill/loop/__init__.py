"""The training loop: epochs, steps, validation, checkpoints."""
