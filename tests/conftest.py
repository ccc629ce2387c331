"""Settings of the whole test run."""

import os

# Set before torch is imported: with several processes on few cores, its threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
