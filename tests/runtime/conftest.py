"""Fixtures of the runtime tests: small explained models, images and videos."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from colour_model import SIDE, write_color_model
from embedding_model import write_embedding_model
from PIL import Image
from tone_model import write_tone_model
from view_client import ABOUT, HERE

from kdedge_runtime.feedback import FeedbackStore
from kdedge_runtime.model import Model
from kdedge_runtime.server.live_view import Controls, Feedback, LiveView
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.stream.settings import LiveSettings
from kdedge_runtime.stream.statistics import RunProgress


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_model(tmp_path_factory.mktemp("model") / "colour.onnx")


@pytest.fixture(scope="session")
def model(model_path: Path) -> Model:
    return Model.load(model_path, threads=1)


@pytest.fixture(scope="session")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(write_embedding_model(tmp_path_factory.mktemp("embedding") / "colors.onnx"), threads=1)


@pytest.fixture(scope="session")
def tone_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(write_tone_model(tmp_path_factory.mktemp("tones") / "tones.onnx"), threads=1)


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a color model with other settings; see `write_color_model`."""
    return lambda name="other.onnx", **settings: write_color_model(tmp_path / name, **settings)


@pytest.fixture
def red_spot() -> np.ndarray:
    """Gray image, uint8 RGB `[64, 64, 3]`, with a red square centered at (44, 20)."""
    picture = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)
    picture[12:28, 36:52] = (255, 0, 0)
    return picture


@pytest.fixture
def photos(tmp_path: Path, red_spot: np.ndarray) -> Path:
    """Folder with three valid images of red, green and blue squares, and a text file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for shift, name in enumerate(("1-red.png", "2-green.png", "3-blue.png")):
        Image.fromarray(np.roll(red_spot, shift, axis=2)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MP4 file with 24 frames of 128 × 96 at 12 fps, first half red, second half blue."""
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    path = tmp_path_factory.mktemp("video") / "colours.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 12.0, (128, 96))
    for index in range(24):
        writer.write(np.full((96, 128, 3), (20, 20, 220) if index < 12 else (220, 20, 20), dtype=np.uint8))
    writer.release()
    return path


@pytest.fixture
def progress(tmp_path: Path) -> RunProgress:
    return RunProgress(ImageSource(tmp_path))


@pytest.fixture
def controls(model: Model) -> Controls:
    return Controls(model, LiveSettings())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore.open(tmp_path / "feedback.sqlite", cap_mb=10) as opened:
        yield opened


@pytest.fixture
def view(controls: Controls, store: FeedbackStore) -> Iterator[LiveView]:
    with LiveView(HERE, ABOUT, controls, Feedback(store, "ab" * 32)) as opened:
        yield opened
