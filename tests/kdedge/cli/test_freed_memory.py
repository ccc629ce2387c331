"""Freed memory stays in the process."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
from typer.testing import CliRunner
from kdedge.cli.app import app
if sys.argv[1] == "kept":
    CliRunner().invoke(app, ["train"])  # without arguments: nothing else runs
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(10):
    blocks = [libc.malloc(ctypes.c_size_t(24 << 20)) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 24 << 20)
    for block in blocks:
        libc.free(ctypes.c_void_p(block))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="The C library is not glibc.")
def test_freed_blocks_are_used_again() -> None:
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", FAULTS, mode], check=True, capture_output=True).stdout)
        for mode in ("default", "kept")
    }
    assert faults["kept"] < faults["default"] / 5
