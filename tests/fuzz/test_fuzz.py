"""Tests of the fuzzer: cases are reproducible, mutators change their input, and failures are detected."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(FOLDER.parent / "runtime"), "OMP_NUM_THREADS": "1"}
PLANTED = """
import sys
import fuzz
from kdedge_runtime.errors import DataError

def case(rng):
    if rng.random() < 0.5:
        raise DataError("refused.")
    {defect}

fuzz.TARGETS["planted"] = lambda work: case
sys.exit(fuzz._run_target("planted", 0, 60.0, 20))
"""


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "fuzz.py"), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False)


def planted(defect: str) -> int:
    paths = {"PYTHONPATH": f"{FOLDER}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    code = PLANTED.format(defect=defect)
    return subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT | paths, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("target", ["image", "model_metadata", "request_head"])
def test_cases_are_reproducible(target: str) -> None:
    runs = [fuzz("--target", target, "--cases", "20", "--seed", "7") for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout.splitlines() == [f"case {7 + at}" for at in range(20)]


@pytest.mark.parametrize(
    ("defect", "code"),
    [
        ("pass", 0),
        ("raise ValueError('none of the project\\'s')", 1),
        ("error = DataError(''); error.args = ('two\\nlines',); raise error", 1),
        ("b'x' * 10**11", 1),
        ("import os; os.abort()", -6),
    ],
    ids=["sound", "another exception", "two lines", "memory", "a crash"],
)
def test_defects_are_detected(defect: str, code: int) -> None:
    assert planted(defect) == code


def test_mutators_change_their_input_and_are_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (FOLDER, FOLDER.parent / "runtime"):
        monkeypatch.syspath_prepend(str(folder))
    from targets import mutated, with_wild_leaf

    content, document = bytes(range(200)), {"a": [1, {"b": 2}], "c": "d"}
    changed = {mutated(content, np.random.default_rng(seed)) for seed in range(50)}
    assert len(changed) > 45
    assert mutated(content, np.random.default_rng(3)) == mutated(content, np.random.default_rng(3))
    assert len({repr(with_wild_leaf(document, np.random.default_rng(seed))) for seed in range(80)}) > 25
    assert document == {"a": [1, {"b": 2}], "c": "d"}
