"""Where training pictures are: in memory where they fit, streamed where not; and how many are validated on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_toys import CLASSES, SIDE, Listener, metrics_of, write_scenes

from kdedge.data import scan
from kdedge.distill.loop import images as module
from kdedge.distill.loop.images import OnDevice, Streamed, training_images
from kdedge.distill.machine.compute import choose_compute
from kdedge.distill.machine.group import Group
from kdedge.distill.run import Request, start_run
from kdedge.models.run_folder import LAST, METRICS
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import ImageInput

SPEC = ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)


def no_progress(done: int, total: int) -> None:
    pass


@pytest.fixture
def nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fits", lambda *_: False)


def test_what_fits_is_kept_in_memory(scenes: Path) -> None:
    images, _, _ = training_images(scan(scenes), SPEC, choose_compute("cpu"), Group(), no_progress)
    assert isinstance(images, OnDevice)


@pytest.mark.usefixtures("nothing_fits")
def test_what_does_not_fit_comes_in_the_same_batches(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed, val, _ = training_images(scan(scenes), SPEC, choose_compute("cpu"), Group(), no_progress)
    monkeypatch.undo()
    kept, kept_val, _ = training_images(scan(scenes), SPEC, choose_compute("cpu"), Group(), no_progress)
    assert isinstance(streamed, Streamed) and isinstance(kept, OnDevice)
    assert torch.equal(streamed.targets, kept.targets) and streamed.side == kept.side
    assert torch.equal(val.pixels, kept_val.pixels)
    order = torch.split(torch.randperm(len(kept), generator=torch.Generator().manual_seed(0)), 7)
    for ours, theirs in zip(streamed.batches(order), kept.batches(order), strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_a_streamed_run_is_the_same_run(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(str(scenes), "small:resnet8", epochs=2, batch_size=16, lr=0.05)
    start_run(request, tmp_path / "kept", Listener(), "cpu")
    monkeypatch.setattr(module, "fits", lambda *_: False)
    start_run(request, tmp_path / "streamed", Listener(), "cpu")
    ours, theirs = load_file(tmp_path / "streamed" / LAST), load_file(tmp_path / "kept" / LAST)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert metrics_of(tmp_path / "streamed") == metrics_of(tmp_path / "kept")


@pytest.mark.usefixtures("nothing_fits")
def test_a_picture_that_vanishes_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=8, val=2)
    victim = next((data / "train").rglob("*.png"))

    class Thief(Listener):
        def on_epoch(self, metrics: dict[str, float]) -> None:  # type: ignore[override]
            victim.unlink(missing_ok=True)

    request = Request(str(data), "small:resnet8", epochs=3, batch_size=8, lr=0.01)
    with pytest.raises(DataError, match=victim.name) as caught:
        start_run(request, tmp_path / "run", Thief(), "cpu")
    assert "\n" not in str(caught.value)
    assert load_file(tmp_path / "run" / LAST)
    assert len((tmp_path / "run" / METRICS).read_text().splitlines()) == 1


def test_validation_takes_a_part_of_each_class_where_it_would_take_longer_than_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_scenes(tmp_path / "data", train=4, val=9)

    def validated() -> list[int]:
        val = training_images(scan(data), SPEC, choose_compute("cpu"), Group(), no_progress)[1]
        return val.targets.bincount().tolist()

    assert validated() == [9] * len(CLASSES), "few enough to look at all"
    monkeypatch.setattr(module, "LEAST_VAL", 5 * len(CLASSES))
    assert validated() == [5] * len(CLASSES)
