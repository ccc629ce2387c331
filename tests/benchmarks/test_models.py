"""Export every classifier of torchvision, and the smallest of each family of timm, with a correct map.

Takes hours (`make test-models`). Each network is measured in a separate process, which adds its row to
`build/models.jsonl`. Existing rows are not measured again, so that the sweep is resumable; `make clean`
removes them. At the end the table is written to `.github/docs/benchmarks/architectures.md`.
"""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import model_sweep
import pytest
from model_sweep import LARGEST, TIMM, TOLERANCE, read_rows, table, torchvision_names

from kdedge_runtime.devices.detection import machine_name

ROOT = Path(__file__).parents[2]
MEASURED, PAGE = ROOT / "build" / "models.jsonl", ROOT / ".github/docs/benchmarks/architectures.md"
NAMES = [*(f"torchvision:{name}" for name in torchvision_names()), *(f"timm:{name}" for name in TIMM)]
ROUNDINGS = 4
"""Maximum error as a multiple of PyTorch's float32 error, as in `kdedge_export.validation.float_tolerance`."""
LIMIT_S = 1500
"""Time limit per network; the largest take about five minutes on an idle machine."""
INTRODUCTION = f"""\
# Models exported with a saliency map

Measured by `make test-models`: torchvision's classifiers up to {LARGEST / 1e6:.0f} M parameters, and the smallest
member of each mainstream family of timm, with random weights, at the smallest input with a map resolution of 4 × 4.

- *Target layer*: detected automatically. *How*: closed-form head, or differentiation of the layers after the target.
- *Errors*: ONNX Runtime vs. PyTorch, maps vs. Grad-CAM by autograd, relative to an image's largest value;
  the larger of two inputs, at most {TOLERANCE:.0e}. If PyTorch in float32 deviates more from float64, as for deep
  networks with random weights or for units within rounding error of their kink, at most {ROUNDINGS} times that, in
  brackets.
- *Cost*: CPU time of one image on one thread, relative to the same graph without the map, median of paired runs.
  At such small inputs the fixed cost of a map is a larger fraction of the time than at 224 px.

"""

pytestmark = [pytest.mark.models, pytest.mark.timeout(LIMIT_S + 60)]


@pytest.fixture(scope="module", autouse=True)
def page(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if len(request.session.items) == len(NAMES):  # a selection would remove rows from the page
        write_page()


def write_page() -> None:
    rows = read_rows(MEASURED)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "onnxruntime"))
    missing = ", ".join(f"`{name}`" for name in NAMES if name not in rows)
    ending = f"\nNot measured yet: {missing}.\n" if missing else ""
    PAGE.write_text(f"{INTRODUCTION}{machine_name()}; {versions}.\n\n{table(rows, NAMES)}{ending}")


@pytest.mark.parametrize("name", NAMES)
def test_network_is_exported_with_a_correct_map(name: str) -> None:
    if name not in read_rows(MEASURED):
        command = [sys.executable, model_sweep.__file__, name, str(MEASURED)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, f"{name}: exit code {done.returncode}\n{done.stderr[-3000:]}"
    row = read_rows(MEASURED)[name]
    allowed = max(TOLERANCE, ROUNDINGS * row.rounding)
    assert row.logits_error <= allowed
    assert row.map_error <= allowed
    assert min(row.positions) >= 4
