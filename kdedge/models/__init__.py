"""Models by name: torchvision, timm, the small residual networks of the distillation literature, the user's own."""
