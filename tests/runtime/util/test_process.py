"""What the process takes of the machine, held against what it is made to take."""

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


def test_memory_that_is_used_is_seen() -> None:
    # In a process of its own: where other tests have left free memory, taking some takes nothing more.
    done = subprocess.run([sys.executable, "-c", _TAKE_AND_GIVE_BACK], capture_output=True, text=True, check=True)
    before, after, peak, later, last_peak = json.loads(done.stdout)
    assert before > 5
    assert 40 < after - before < 80, "a tenth more or less is the allocator's"
    assert peak > before + 40
    assert later < after - 40
    assert last_peak == peak, "a peak stays"


def test_files_that_are_opened_are_seen() -> None:
    before = open_files()
    assert before is not None
    with ExitStack() as files:
        for _ in range(5):
            files.enter_context(Path(os.devnull).open())
        assert open_files() == before + 5
    assert open_files() == before
