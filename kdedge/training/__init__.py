"""Training and distillation: trainer, teachers, augmentation, checkpoints, distributed processes."""
