"""Self-contained HTML pages: the comparison of runs (`document`) and the inspection of a model (`inspection`)."""
