"""Torchvision datasets are read from disk with their official splits, and never downloaded.

The files are tiny, but are read by torchvision's own classes.
"""

import csv
import gzip
import json
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from kdedge.data import DatasetIndex, Split, decode, index_dataset, load, subset
from kdedge_runtime.errors import DataError, MissingDependency
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(height=28, width=28, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Location of the original files from Debian's package `dataset-fashion-mnist`."""


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write MNIST's format: two zero bytes, the type (8: uint8), the number of dimensions, each size, the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">2xBB{values.ndim}I", 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(root: Path, name: str = "FashionMNIST", train: int = 60, test: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for side, count in (("train", train), ("t10k", test)):
        raw = root / name / "raw"
        write_idx(raw / f"{side}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{side}-labels-idx1-ubyte", np.arange(count) % 10)
    return root


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (len(str(path)) % 256, 0, 0)).save(path)


def write_food(root: Path) -> None:
    for side in ("train", "test"):
        listed = {label: [f"{label}/{side}{index}" for index in range(6)] for label in ("apple_pie", "waffles")}
        (root / "food-101/meta").mkdir(parents=True, exist_ok=True)
        (root / f"food-101/meta/{side}.json").write_text(json.dumps(listed))
        for label in listed:
            for name in listed[label]:
                picture(root / f"food-101/images/{name}.jpg")


def write_country(root: Path) -> None:
    for side, count in (("train", 4), ("valid", 3), ("test", 2)):
        for index in range(count):
            picture(root / f"country211/{side}/AD/{index}.jpg")
            picture(root / f"country211/{side}/AE/{index}.jpg")


def write_traffic_signs(root: Path) -> None:
    for index in range(12):
        picture(root / f"gtsrb/GTSRB/Training/{index % 3:05}/{index}.ppm")
        picture(root / f"gtsrb/GTSRB/Final_Test/Images/{index:05}.ppm")
    with (root / "gtsrb/GT-final_test.csv").open("w") as table:
        rows = csv.writer(table, delimiter=";")
        rows.writerows([("Filename", "ClassId"), *((f"{index:05}.ppm", index % 3) for index in range(12))])


def write_pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for side, first in (("trainval", 0), ("test", 10)):
        names = [f"{breed}_{index}" for breed in ("Abyssinian", "pug") for index in range(first, first + 8)]
        for name in names:
            picture(base / f"images/{name}.jpg")
        (base / "annotations").mkdir(exist_ok=True)
        lines = [f"{name} {1 + name.startswith('pug')} 1 1\n" for name in names]
        (base / f"annotations/{side}.txt").write_text("".join(lines))


def write_satellite(root: Path) -> None:
    for index in range(20):
        picture(root / f"eurosat/2750/{('Forest', 'River')[index % 2]}/{index}.jpg")


def names(split: Split | None) -> list[str]:
    assert split is not None
    return [sample.name for sample in split.samples]


def sizes(dataset: DatasetIndex) -> tuple[int, int, int | None]:
    """Return the sizes of train + val, val and test; a hash may have split train and val."""
    test = None if dataset.test is None else len(dataset.test)
    return len(dataset.train) + len(dataset.val), len(dataset.val), test


class TestMnist:
    def test_each_image_has_its_class(self, tmp_path: Path) -> None:
        dataset = index_dataset(f"torchvision:FashionMNIST:{write_mnist(tmp_path)}")
        reference = {train: datasets.FashionMNIST(tmp_path, train=train) for train in (True, False)}
        assert dataset.labels == tuple(reference[True].classes)
        for split in (dataset.train, dataset.val, dataset.test):
            assert split is not None
            decoded = decode(split, SPEC)
            source = reference[split is not dataset.test]
            indices = [int(sample.name.split("/")[1]) for sample in decoded.stored]
            np.testing.assert_array_equal(decoded.samples[..., 0], source.data[indices].numpy())
            np.testing.assert_array_equal(decoded.targets, source.targets[indices].numpy())

    def test_validation_is_split_from_training_and_test_is_official(self, tmp_path: Path) -> None:
        dataset = index_dataset(f"torchvision:FashionMNIST:{write_mnist(tmp_path)}")
        assert dataset.split == "hashed"
        assert sorted(names(dataset.train) + names(dataset.val)) == [f"train/{n:06}" for n in range(60)]
        assert set(dataset.val.targets) == set(range(10))
        assert names(dataset.test) == [f"test/{n:06}" for n in range(20)]
        again = index_dataset(f"torchvision:FashionMNIST:{tmp_path}")
        assert names(again.val) == names(dataset.val)

    def test_load_subset_and_rescan_equal_those_of_a_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(write_mnist(tmp_path))
        dataset = index_dataset("torchvision:FashionMNIST:.")
        assert dataset.name == "FashionMNIST"
        monkeypatch.chdir("/")
        assert index_dataset(dataset.source).fingerprint == dataset.fingerprint
        small = subset(dataset, 2)
        assert sorted(small.train.targets) == sorted([*range(10)] * 2)
        assert len(load(small, SPEC).train) == 20

    def test_fingerprint_depends_on_pixels_and_classes(self, tmp_path: Path) -> None:
        prints = {index_dataset(f"torchvision:MNIST:{write_mnist(tmp_path, 'MNIST')}").fingerprint}
        raw = tmp_path / "MNIST/raw"
        content = bytearray((raw / "t10k-images-idx3-ubyte").read_bytes())
        content[100] ^= 1
        (raw / "t10k-images-idx3-ubyte").write_bytes(content)
        prints.add(index_dataset(f"torchvision:MNIST:{tmp_path}").fingerprint)
        write_idx(raw / "train-labels-idx1-ubyte", np.arange(60) % 9)
        prints.add(index_dataset(f"torchvision:MNIST:{tmp_path}").fingerprint)
        assert len(prints) == 3

    def test_samples_are_pickled_without_images(self, tmp_path: Path) -> None:
        dataset = index_dataset(f"torchvision:FashionMNIST:{write_mnist(tmp_path, train=600)}")
        pickled = pickle.dumps(dataset.train.samples)
        assert len(pickled) < 100 * len(dataset.train)
        copy = pickle.loads(pickled)[5]
        np.testing.assert_array_equal(copy.read().values, dataset.train.samples[5].read().values)

    @pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
    def test_original_files(self, tmp_path: Path) -> None:
        (tmp_path / "FashionMNIST/raw").mkdir(parents=True)
        for packed in DEBIAN.glob("*.gz"):
            (tmp_path / "FashionMNIST/raw" / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        dataset = index_dataset(f"torchvision:FashionMNIST:{tmp_path}")
        assert sizes(dataset)[::2] == (60_000, 10_000)
        assert abs(len(dataset.val) / 60_000 - 0.2) < 0.01
        assert np.bincount(dataset.test.targets if dataset.test else ()).tolist() == [1000] * 10


@pytest.mark.parametrize(
    ("name", "write", "expected", "labels"),
    [
        ("Food101", write_food, (12, None, 12), ("apple_pie", "waffles")),
        ("Country211", write_country, (14, 6, 4), ("AD", "AE")),
        ("GTSRB", write_traffic_signs, (12, None, 12), ("0", "1", "2")),
        ("OxfordIIITPet", write_pets, (16, None, 16), ("Abyssinian", "Pug")),
        ("EuroSAT", write_satellite, (20, None, None), ("Forest", "River")),
    ],
)
def test_splits_and_labels_are_official(
    tmp_path: Path,
    name: str,
    write: Callable[[Path], None],
    expected: tuple[int, int | None, int | None],
    labels: tuple[str, ...],
) -> None:
    write(tmp_path)
    dataset = index_dataset(f"torchvision:{name}:{tmp_path}")
    total, val, test = sizes(dataset)
    assert (total, test) == expected[::2]
    assert dataset.labels == labels
    if expected[1] is None:
        assert dataset.split == "hashed"
        assert 0 < val < total / 2
    else:
        assert dataset.split == "official"
        assert val == expected[1]
    for sample, target in dataset.train.pairs():
        assert sample.open().size == (40, 30)
        assert 0 <= target < len(labels)


class TestRefusals:
    def test_missing_files_suggest_the_download_command(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            index_dataset(f"torchvision:CIFAR10:{tmp_path}")
        message = str(caught.value)
        assert str(tmp_path) in message
        assert f"from torchvision.datasets import CIFAR10; CIFAR10('{tmp_path}', train=True, download=True)" in message
        assert list(tmp_path.iterdir()) == []

    def test_missing_split_is_named(self, tmp_path: Path) -> None:
        write_country(tmp_path)
        (tmp_path / "country211/test").rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match="Country211, split='test' cannot be read"):
            index_dataset(f"torchvision:Country211:{tmp_path}")

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no such folder"):
            index_dataset(f"torchvision:CIFAR10:{tmp_path / 'nowhere'}")

    def test_automatic_downloads_are_disabled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(_: object) -> None:
            pytest.fail("downloads")

        monkeypatch.setattr(datasets.SEMEION, "download", download)
        with pytest.raises(DataError, match="SEMEION"):
            index_dataset(f"torchvision:SEMEION:{tmp_path}")

    @pytest.mark.parametrize(
        ("name", "pattern"),
        [("cifar10", "Did you mean CIFAR10"), ("Flower102", "Did you mean Flowers102"), ("xyz", "such as")],
    )
    def test_unknown_name_suggests_the_closest(self, tmp_path: Path, name: str, pattern: str) -> None:
        with pytest.raises(DataError, match=pattern):
            index_dataset(f"torchvision:{name}:{tmp_path}")

    @pytest.mark.parametrize("data", ["torchvision:CIFAR10", "torchvision:", "torchvision:CIFAR10:"])
    def test_name_without_folder(self, data: str) -> None:
        with pytest.raises(DataError, match="torchvision:NAME:ROOT"):
            index_dataset(data)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torchvision leaves files open
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_dataset_without_classes(self, tmp_path: Path) -> None:
        picture(tmp_path / "Kitti/raw/training/image_2/0.png")
        picture(tmp_path / "Kitti/raw/testing/image_2/0.png")
        (tmp_path / "Kitti/raw/training/label_2").mkdir()
        (tmp_path / "Kitti/raw/training/label_2/0.txt").write_text("Car 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
        with pytest.raises(DataError, match="Kitti is not for classification"):
            index_dataset(f"torchvision:Kitti:{tmp_path}")

    def test_missing_package_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda _: True)
        with pytest.raises(MissingDependency, match=r"pip install scipy$"):
            index_dataset(f"torchvision:SVHN:{tmp_path}")
