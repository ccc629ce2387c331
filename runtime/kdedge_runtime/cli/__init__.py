"""Command line of `kdedge-run`."""
