"""Bounded fuzzing of untrusted input: model files, images, run folders, bundles, requests.

    python tests/fuzz/fuzz.py [--seconds S] [--seed N]
    python tests/fuzz/fuzz.py --target NAME --seed SEED --cases 1

Each target runs in a separate process with 6 GiB of memory. Crashes, hangs and unbounded memory are therefore detected,
as well as exceptions other than the project's own. Prints one row per target. Exits with 1 and prints the command that
repeats the case if one fails.
"""

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
from targets import TARGETS

from kdedge_runtime.errors import KdedgeError

_MEMORY_BYTES = 6 * 2**30
_CASE_S = 30
"""Time limit of a case in s; longer is a hang."""
_START_S = 120
"""Time limit for the imports and setup of a target's process in s."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="Total time for all targets in s. [default: 60]")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the first case of each target. [default: 0]")
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--cases", type=int, help="Number of cases of the target. [default: as many as fit]")
    options = parser.parse_args()
    if options.target is not None:
        return _run_target(options.target, options.seed, options.seconds, options.cases)
    failed = [name for name in TARGETS if not _passes(name, options.seed, options.seconds / len(TARGETS))]
    return 1 if failed else 0


def _passes(name: str, seed: int, seconds: float) -> bool:
    """Run a target in a separate process and print the result."""
    command = [sys.executable, __file__, "--target", name, "--seed", str(seed), "--seconds", str(seconds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_START_S + seconds + _CASE_S, check=False
        )
        output, code = done.stdout, done.returncode
        error = done.stderr
    except subprocess.TimeoutExpired as late:
        output, code, error = (late.stdout or b"").decode(), -signal.SIGALRM, "timeout"
    cases = [line for line in output.splitlines() if line.startswith("case ")]
    last = cases[-1].split()[1] if cases else str(seed)
    print(f"{name:16} {len(cases):6} cases  {'passed' if code == 0 else f'FAILED (exit {code})'}", flush=True)
    if code:
        print(error[-3000:])
        print(f"Again: python tests/fuzz/fuzz.py --target {name} --seed {last} --cases 1")
    return code == 0


def _run_target(name: str, seed: int, seconds: float, cases: int | None) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory() as folder:
        case = TARGETS[name](Path(folder))
        end, done = time.monotonic() + seconds, 0
        while time.monotonic() < end and (cases is None or done < cases):
            print(f"case {seed + done}", flush=True)
            signal.alarm(_CASE_S)
            try:
                case(np.random.default_rng(seed + done))
            except KdedgeError as error:
                text = str(error)
                if "\n" in text or any(ord(letter) < 32 for letter in text):
                    raise RuntimeError(f"more than one sentence: {text!r}") from error
            finally:
                signal.alarm(0)
            done += 1
    return 0


def _hang(*_: object) -> NoReturn:
    raise TimeoutError(f"the case takes more than {_CASE_S} s")


if __name__ == "__main__":
    sys.exit(main())
