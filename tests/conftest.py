"""Settings of the whole test run."""

import contextlib
import functools
import gc
import os
import tempfile
import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Set before torch is imported: with several processes on few cores, its threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Commands keep the newest version of bundles there: not among the user's own.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="pytest-state-")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt modules and tests from garbage collection: they stay, and each search visits all of them.

    Graph exports create many objects that live on, so that frequent searches find nothing.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)
        gc.enable()


@pytest.fixture(scope="session")
def operators_listed_once() -> Iterator[None]:
    """PyTorch lists its ONNX operators anew for every export, which takes a third of a small one's time."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError, AttributeError):  # in another version it may be elsewhere
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            once = functools.cache(ONNXRegistry.from_torchlib)
            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        yield


@pytest.fixture(scope="session")
def networks_exported_once(operators_listed_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share the graphs of equal networks. `kdedge export` compares each with PyTorch, whether exported or shared."""
    from export_cache import GraphFolder, exported_once

    from kdedge_export import verified_export

    once = exported_once(verified_export.export_graph, GraphFolder.of_run(tmp_path_factory))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verified_export, "export_graph", once)
        yield


@pytest.fixture(scope="session")
def spoken_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of spoken digits at 8 kHz, a folder a digit, named by speaker and take."""
    archive = Path(__file__).parents[1].parent / "shared" / "data" / "spoken-digits.zip"
    if not archive.exists():
        pytest.skip(f"the reference data are not at {archive}")
    folder = tmp_path_factory.mktemp("digits")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder
