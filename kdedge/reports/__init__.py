"""Terminal output and HTML pages: progress, tables, charts."""
