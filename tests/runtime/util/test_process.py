"""Memory and open files of the process."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from kdedge_runtime.util.process import open_files

_TAKE_AND_GIVE_BACK = """
import json
import numpy as np
from kdedge_runtime.util.process import memory_mb, peak_memory_mb

before = memory_mb()
held = np.ones(50_000_000, dtype=np.uint8)
after, peak = memory_mb(), peak_memory_mb()
del held
print(json.dumps([before, after, peak, memory_mb(), peak_memory_mb()]))
"""


def test_allocated_memory_is_reported() -> None:
    # In a subprocess, because freed memory of other tests would be reused.
    done = subprocess.run([sys.executable, "-c", _TAKE_AND_GIVE_BACK], capture_output=True, text=True, check=True)
    before, after, peak, later, last_peak = json.loads(done.stdout)
    assert before > 5
    assert 40 < after - before < 80, "within allocator noise"
    assert peak > before + 40
    assert later < after - 40
    assert last_peak == peak, "the peak does not decrease"


def test_opened_files_are_counted() -> None:
    before = open_files()
    assert before is not None
    with ExitStack() as files:
        for _ in range(5):
            files.enter_context(Path(os.devnull).open())
        assert open_files() == before + 5
    assert open_files() == before
