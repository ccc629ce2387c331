"""Building blocks of HTML pages: frame, text, numbers and images, without scripts or external resources."""
