"""What the process takes of the machine, held against what it is made to take."""

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from kdedge_runtime.process import memory_mb, open_files, peak_memory_mb


def test_memory_that_is_used_is_seen() -> None:
    before = memory_mb()
    assert before is not None and before > 5
    held = np.ones(50_000_000, dtype=np.uint8)
    after = memory_mb()
    assert after is not None and 40 < after - before < 80, "a tenth more or less is the allocator's"
    peak = peak_memory_mb()
    assert peak is not None and peak > before + 40
    del held
    later = memory_mb()
    assert later is not None and later < after - 40
    assert peak_memory_mb() == peak, "a peak stays"


def test_files_that_are_opened_are_seen() -> None:
    before = open_files()
    assert before is not None
    with ExitStack() as files:
        for _ in range(5):
            files.enter_context(Path(os.devnull).open())
        assert open_files() == before + 5
    assert open_files() == before
