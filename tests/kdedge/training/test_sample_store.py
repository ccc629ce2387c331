"""Image storage: in memory if it fits, otherwise streamed; and the number of validation images."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_toys import CLASSES, SIDE, Listener, metrics_of, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.data import index_dataset
from kdedge.models.run_folder import LAST, METRICS
from kdedge.training import sample_store as module
from kdedge.training.compute_device import ComputeDevice, choose_device
from kdedge.training.distributed import ProcessGroup
from kdedge.training.sample_store import DeviceSamples, StreamedSamples, load_evaluation_samples, load_training_samples
from kdedge.training.training_run import start_run
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.progress import no_progress

SPEC = ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fits_in_memory", lambda *_: False)


BYTES = SIDE * SIDE * 3
"""Size of one image in bytes."""


@pytest.mark.parametrize(
    ("pictures", "kept"),
    [(66, {"train", "val"}), (65, {"val"}), (18, {"val"}), (17, set())],
    ids=["all 66", "not all", "the 18 for validation", "not those"],
)
def test_images_that_fit_in_half_of_the_memory_are_kept(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, pictures: int, kept: set[str]
) -> None:
    monkeypatch.setattr(ComputeDevice, "memory_bytes", 2 * pictures * BYTES)
    train, val, _, windows = load_training_samples(
        index_dataset(scenes), SPEC, choose_device("cpu"), ProcessGroup(), no_progress
    )
    assert windows == (0, 0)
    assert {side for side, images in {"train": train, "val": val}.items() if isinstance(images, DeviceSamples)} == kept
    assert (len(train), len(val)) == (48, 18)


def test_test_images_count_images_already_in_memory(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, compute = index_dataset(scenes), choose_device("cpu")
    train, val, *_ = load_training_samples(dataset, SPEC, compute, ProcessGroup(), no_progress)
    for pictures, expected in ((84, DeviceSamples), (83, StreamedSamples)):
        monkeypatch.setattr(ComputeDevice, "memory_bytes", 2 * pictures * BYTES)
        arguments = (dataset.val, SPEC, compute, ProcessGroup(), no_progress)
        test, problems = load_evaluation_samples(*arguments, beside=(train, val))
        assert isinstance(test, expected) and len(test) == 18 and not problems


@pytest.mark.usefixtures("nothing_fits")
def test_streamed_batches_equal_in_memory_batches(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_streamed = load_training_samples(
        index_dataset(scenes), SPEC, choose_device("cpu"), ProcessGroup(), no_progress
    )[:2]
    monkeypatch.undo()
    both_kept = load_training_samples(index_dataset(scenes), SPEC, choose_device("cpu"), ProcessGroup(), no_progress)[
        :2
    ]
    for streamed, kept in zip(both_streamed, both_kept, strict=True):
        assert isinstance(streamed, StreamedSamples) and isinstance(kept, DeviceSamples)
        assert torch.equal(streamed.targets, kept.targets)
        order = torch.split(torch.randperm(len(kept), generator=torch.Generator().manual_seed(0)), 7)
        for ours, theirs in zip(streamed.batches(order), kept.batches(order), strict=True):
            assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
        streamed.close()


@pytest.mark.usefixtures("nothing_fits")
def test_hash_depends_on_the_resizing_rule(scenes: Path) -> None:
    specs = [SPEC, replace(SPEC, height=16, width=16), replace(SPEC, crop_fraction=0.875)]
    found = [
        load_training_samples(index_dataset(scenes), spec, choose_device("cpu"), ProcessGroup(), no_progress)[0]
        for spec in specs
    ]
    assert len({images.sha256 for images in found}) == 3


@pytest.mark.usefixtures("nothing_fits")
def test_unreadable_validation_and_test_images_are_skipped(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=8, val=3)
    shutil.copytree(data / "val", data / "test")
    for side in ("val", "test"):
        next((data / side / "fish").iterdir()).write_bytes(b"")
    listener = Listener()
    record = start_run(TrainConfig(str(data), "small:resnet8", epochs=1), tmp_path / "run", listener, "cpu")
    assert record.data["val"] == 8 and record.result is not None and "test" in record.result
    assert [re.sub(r"\(.*", "", warning) for warning in listener.warnings] == [
        "1 of 9 samples: 1 empty ",
        "Test samples: 1 of 9 samples: 1 empty ",
    ]


@pytest.mark.usefixtures("nothing_fits")
def test_class_without_readable_validation_images_is_an_error(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=8, val=1)
    next((data / "val" / "fish").iterdir()).write_bytes(b"")
    with pytest.raises(DataError, match=r"No validation sample of class 'fish' .* can be read"):
        start_run(TrainConfig(str(data), "small:resnet8", epochs=1), tmp_path / "run", Listener(), "cpu")


def test_streamed_run_equals_in_memory_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_scenes(tmp_path / "data")
    shutil.copytree(data / "val", data / "test")
    request = TrainConfig(str(data), "small:resnet8", epochs=2, batch_size=16, lr=0.05)
    kept = start_run(request, tmp_path / "kept", Listener(), "cpu")
    monkeypatch.setattr(module, "fits_in_memory", lambda *_: False)
    streamed = start_run(request, tmp_path / "streamed", Listener(), "cpu")
    assert kept.result is not None and streamed.result is not None
    assert kept.result["test"] == streamed.result["test"]
    ours, theirs = load_file(tmp_path / "streamed" / LAST), load_file(tmp_path / "kept" / LAST)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert metrics_of(tmp_path / "streamed") == metrics_of(tmp_path / "kept")


@pytest.mark.usefixtures("nothing_fits")
def test_missing_image_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=8, val=2)
    victim = next((data / "train").rglob("*.png"))

    class Thief(Listener):
        def on_epoch(self, metrics: dict[str, float]) -> None:  # type: ignore[override]
            victim.unlink(missing_ok=True)

    request = TrainConfig(str(data), "small:resnet8", epochs=3, batch_size=8, lr=0.01)
    with pytest.raises(DataError, match=victim.name) as caught:
        start_run(request, tmp_path / "run", Thief(), "cpu")
    assert "\n" not in str(caught.value)
    assert load_file(tmp_path / "run" / LAST)
    assert len((tmp_path / "run" / METRICS).read_text().splitlines()) == 1


def test_large_validation_splits_are_subsampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_scenes(tmp_path / "data", train=4, val=9)

    def validated() -> list[int]:
        val = load_training_samples(index_dataset(data), SPEC, choose_device("cpu"), ProcessGroup(), no_progress)[1]
        return val.targets.bincount().tolist()

    assert validated() == [9] * len(CLASSES), "few enough to use all"
    monkeypatch.setattr(module, "MIN_VAL", 5 * len(CLASSES))
    assert validated() == [5] * len(CLASSES)
