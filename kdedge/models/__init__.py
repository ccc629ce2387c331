"""Models by name: torchvision, timm, small residual networks from the distillation literature, and custom factories."""
