"""Train a teacher, distill a student: one engine, a weighted sum of terms, checkpoints that survive anything."""
