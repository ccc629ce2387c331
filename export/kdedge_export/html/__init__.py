"""Building blocks of HTML pages: templates, charts, text, numbers and images, without scripts or external resources."""
