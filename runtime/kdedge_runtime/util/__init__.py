"""Arrays, files, images, text and timing that all rooms share."""
