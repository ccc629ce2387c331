"""Who teaches, and what is said of each batch: asked anew, or remembered."""
