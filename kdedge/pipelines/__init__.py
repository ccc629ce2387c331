"""Implementation of the commands: training, export, validation, comparison and the demo."""
