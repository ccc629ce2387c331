"""The command `kdedge-run`."""
