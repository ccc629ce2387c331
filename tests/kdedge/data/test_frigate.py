"""Folders of Frigate's custom classification models as datasets."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_toys import kdedge

from kdedge.data import DatasetIndex, SkippedSamples, index_dataset
from kdedge.data.readers.frigate import find_frigate_dataset
from kdedge_runtime.errors import DataError


def make(root: Path, *names: str) -> Path:
    """Create files of one byte, since indexing opens no image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def frigate(root: Path, *folders: str) -> Path:
    """Create `clips/bins` as Frigate does, with ten images per class folder, and unverified crops."""
    images = [f"dataset/{folder}/{folder}-{index}.png" for folder in folders for index in range(10)]
    crops = [f"train/1700000{index}.5-abc-1700000{index}.7-out-0.9{index}.webp" for index in range(3)]
    return make(root / "clips" / "bins", *images, *crops, ".training_metadata.json")


def everything(index: DatasetIndex) -> list[str]:
    return sorted(sample.name for split in (index.train, index.val) for sample in split.samples)


@pytest.mark.parametrize("given", ["", "dataset"])
def test_model_folder_and_class_folder_are_the_same_dataset(tmp_path: Path, given: str) -> None:
    model = frigate(tmp_path, "in", "out", "open", "none")
    index = index_dataset(model / given)
    assert index.labels == ("in", "open", "out")
    assert everything(index) == sorted(f"{name}/{name}-{i}.png" for name in ("in", "out", "open") for i in range(10))
    assert index.source == str(model / "dataset")
    assert index.name == "bins"
    assert index.unfamiliar == (str(model / "dataset" / "none"),)
    skipped = [name for name, _ in index.skipped]
    assert skipped == [f"none/none-{i}.png" for i in range(10)]
    assert "10 of no class, in none/" in str(SkippedSamples(40, index.skipped))


def test_fingerprint_does_not_depend_on_the_given_folder_or_on_crops(tmp_path: Path) -> None:
    model = frigate(tmp_path, "in", "out", "none")
    first = index_dataset(model).fingerprint
    assert index_dataset(model / "dataset").fingerprint == first
    make(model, "train/more.webp", "dataset/none/more.png")
    assert index_dataset(model).fingerprint == first
    make(model, "dataset/in/more.png")
    assert index_dataset(model).fingerprint != first


def test_unknown_is_no_class_either(tmp_path: Path) -> None:
    index = index_dataset(frigate(tmp_path, "in", "out", "unknown", "None"))
    assert index.labels == ("in", "out")
    assert [Path(folder).name for folder in index.unfamiliar] == ["None", "unknown"]


def test_none_is_the_second_class_of_a_model_with_one(tmp_path: Path) -> None:
    """Frigate's own example: a pet by its name, and `none` for all others."""
    index = index_dataset(frigate(tmp_path, "buddy", "none", "unknown"))
    assert index.labels == ("buddy", "none")
    assert [Path(folder).name for folder in index.unfamiliar] == ["unknown"]


@pytest.mark.parametrize("trace", ["train", ".training_metadata.json"])
def test_copied_model_is_recognized_by_what_lies_beside(tmp_path: Path, trace: str) -> None:
    model = frigate(tmp_path, "in", "out", "none").rename(tmp_path / "copied")
    for other in {"train", ".training_metadata.json"} - {trace}:
        path = model / other
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert index_dataset(model).labels == index_dataset(model / "dataset").labels == ("in", "out")


def test_new_model_without_crops_is_recognized_in_clips(tmp_path: Path) -> None:
    model = frigate(tmp_path, "in", "out", "none")
    shutil.rmtree(model / "train")
    (model / ".training_metadata.json").unlink()
    assert index_dataset(model).labels == ("in", "out")


def test_other_folders_keep_their_classes(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain", *(f"{name}/{i}.jpg" for name in ("cat", "dog", "none") for i in range(5)))
    assert index_dataset(plain).labels == ("cat", "dog", "none")
    nested = make(tmp_path / "dataset", *(f"{name}/{i}.jpg" for name in ("cat", "dog", "none") for i in range(5)))
    assert index_dataset(nested).labels == ("cat", "dog", "none")
    assert index_dataset(nested).unfamiliar == ()
    both = make(tmp_path / "both", *(f"{name}/{i}.jpg" for name in ("dataset", "train", "none") for i in range(5)))
    assert index_dataset(both).labels == ("dataset", "none", "train"), "classes with the names of Frigate's folders"
    splits = make(
        tmp_path / "splits", *(f"{side}/{name}/{i}.jpg" for side in ("train", "val") for name in "ab" for i in range(5))
    )
    assert index_dataset(splits).labels == ("a", "b")
    assert find_frigate_dataset(tmp_path / "missing") is None


def test_model_without_images_is_an_error(tmp_path: Path) -> None:
    model = frigate(tmp_path, "none")
    with pytest.raises(DataError, match="only one class"):
        index_dataset(model)
    (model / "dataset" / "in").mkdir()
    (model / "dataset" / "out").mkdir()
    with pytest.raises(DataError, match="no images"):
        index_dataset(model)


def test_training_reports_what_it_keeps_out(tmp_path: Path) -> None:
    model, rng = frigate(tmp_path, "in", "out", "none"), np.random.default_rng(0)
    for path in model.glob("dataset/*/*.png"):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    options = ["--model", "resnet8", "--epochs", 1, "--device", "cpu", "--out", tmp_path / "run"]
    done = kdedge("train", model, *options)
    assert done.returncode == 0, done.stderr
    assert "of no class, in none/" in " ".join((done.stdout + done.stderr).split())
