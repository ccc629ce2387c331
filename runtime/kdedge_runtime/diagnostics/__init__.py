"""Self-test, benchmark, soak test and environment report."""
