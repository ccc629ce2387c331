"""Self-contained pages: the comparison of runs (`document`), and what there is to see in a model (`inspection`)."""
