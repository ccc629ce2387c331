"""Settings of the whole test run."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator

import pytest

# Set before torch is imported: with several processes on few cores, its threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Commands keep the newest version of bundles there: not among the user's own.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="pytest-state-")


@pytest.fixture(scope="session")
def operators_listed_once() -> Iterator[None]:
    """PyTorch lists its ONNX operators anew for every export, which takes a third of a small one's time."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError, AttributeError):  # in another version it may be elsewhere
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            once = functools.cache(ONNXRegistry.from_torchlib)
            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        yield
