"""Training and distillation: one training loop, a weighted sum of loss terms, and resumable checkpoints."""
