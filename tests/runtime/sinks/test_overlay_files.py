"""Overlays as image files, and their names."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_predictions import toy_prediction

from kdedge_runtime.sinks.image_folder import ImageFolder
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.files import UniqueNames, displayable


def test_overlays_are_named_after_their_images(tmp_path: Path, progress: RunProgress) -> None:
    with ImageFolder(tmp_path / "out", names_differ=False) as sink:
        for name, shade in (
            ("a/1.png", 0),
            ("b/1.png", 100),
            ("b/1.jpg", 200),
            ("film.v2-000001", 50),
            ("film.v2-000002", 60),
        ):
            sink.write(toy_prediction(name=name, shade=shade), progress)
    written = {
        path.relative_to(tmp_path / "out").as_posix(): round(np.asarray(Image.open(path)).mean())
        for path in (tmp_path / "out").rglob("*.jpg")
    }
    assert written == {
        "a/1.jpg": 0,
        "b/1.jpg": 100,
        "b/1-2.jpg": 200,
        "film.v2-000001.jpg": 50,
        "film.v2-000002.jpg": 60,
    }


def test_numbered_frames_replace_existing_files(tmp_path: Path, progress: RunProgress) -> None:
    with ImageFolder(tmp_path / "out", names_differ=True) as sink:
        for name, shade in (("film.v2-000001", 50), ("film.v2-000002", 60), ("film.v2-000001", 200)):
            sink.write(toy_prediction(name=name, shade=shade), progress)
    written = {path.name: round(np.asarray(Image.open(path)).mean()) for path in (tmp_path / "out").iterdir()}
    assert written == {"film.v2-000001.jpg": 200, "film.v2-000002.jpg": 60}


@pytest.mark.parametrize("names_differ", [True, False])
def test_long_escaped_names_are_shortened(tmp_path: Path, progress: RunProgress, names_differ: bool) -> None:
    name = displayable(os.fsdecode(b"\xe9" * 200))
    with ImageFolder(tmp_path / "out", names_differ=names_differ) as sink:
        for ending in ("x", "y"):
            sink.write(toy_prediction(name=f"{name}/{name}{ending}.png"), progress)
    files = list((tmp_path / "out").rglob("*.jpg"))
    assert len({path.name for path in files}) == 2, "names stay different"
    assert all(path.name.startswith("\\xe9") and len(path.name.encode()) <= 255 for path in files)


def test_names_are_unique_ignoring_case() -> None:
    names = UniqueNames()
    assert [names.take(stem, ".png") for stem in ("a", "A", "a-2", "a")] == ["a.png", "A-2.png", "a-2-2.png", "a-3.png"]


def test_repeated_name_is_found_in_constant_time() -> None:
    names, started = UniqueNames(), time.perf_counter()
    assert [names.take("a", ".png") for _ in range(5_000)][-1] == "a-5000.png"
    assert time.perf_counter() - started < 2
