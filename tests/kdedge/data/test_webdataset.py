"""WebDataset shards form a dataset like any other: images, classes and splits."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge.data import UNLABELED, DatasetIndex, SkippedSample, Split, decode, index_dataset, load, subset
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(height=8, width=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def picture(value: int, kind: str = "PNG") -> bytes:
    """Encode an image whose red channel is `value`, so that images can be distinguished."""
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (value, 0, 128)).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], tar_format: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(path: Path, first: int, count: int, classes: int = 3) -> Path:
    """Write images `first`, `first + 1`, …, with their number modulo `classes` as the class."""
    members = {}
    for number in range(first, first + count):
        members[f"{number:06}.cls"] = str(number % classes).encode()
        members[f"{number:06}.png"] = picture(number)
        members[f"{number:06}.json"] = b"{}"
    return write_tar(path, members)


def names(split: Split) -> list[str]:
    return [sample.name for sample in split.samples]


def assert_pictures_have_their_classes(dataset: DatasetIndex, classes: int = 3) -> None:
    for split in (dataset.train, dataset.val, *([dataset.test] if dataset.test else [])):
        decoded = decode(split, SPEC)
        numbers = [int(Path(sample.name).stem) for sample in decoded.stored]
        np.testing.assert_array_equal(decoded.samples[:, 4, 4, 0], numbers)
        np.testing.assert_array_equal(decoded.targets, np.array(numbers) % classes)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """30 training, 12 validation and 6 test images in four tar files."""
    shard(tmp_path / "train-0000.tar", 0, 15)
    shard(tmp_path / "train-0001.tar", 15, 15)
    shard(tmp_path / "val-0000.tar", 30, 12)
    shard(tmp_path / "test-0000.tar", 42, 6)
    return tmp_path


class TestListing:
    def test_split_is_read_from_shard_names(self, shards: Path) -> None:
        dataset = index_dataset(shards)
        assert dataset.split == "shards"
        assert names(dataset.train) == [f"train-000{n // 15}.tar/{n:06}.png" for n in range(30)]
        assert names(dataset.val) == [f"val-0000.tar/{n:06}.png" for n in range(30, 42)]
        assert dataset.test is not None
        assert names(dataset.test) == [f"test-0000.tar/{n:06}.png" for n in range(42, 48)]
        assert dataset.labels == ("0", "1", "2")
        assert_pictures_have_their_classes(dataset)

    @pytest.mark.parametrize(
        "pattern",
        [
            "{train,val,test}-*.tar",
            "*.tar",
            "*.tar::val-*.tar",
            "train-{0000..0001}.tar::val-0000.tar::test-0000.tar",
        ],
    )
    def test_patterns_expand_as_in_webdataset(
        self, shards: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(shards)
        dataset, folder = index_dataset(pattern), index_dataset(shards)
        assert (dataset.train, dataset.val, dataset.test) == (folder.train, folder.val, folder.test)
        assert dataset.fingerprint == folder.fingerprint
        monkeypatch.chdir("/")
        assert index_dataset(dataset.source) == dataset

    def test_splits_may_be_folders(self, tmp_path: Path) -> None:
        shard(tmp_path / "train/0.tar", 0, 12)
        shard(tmp_path / "validation/0.tar", 12, 6)
        dataset = index_dataset(tmp_path)
        assert (len(dataset.train), len(dataset.val), dataset.test) == (12, 6, None)
        assert_pictures_have_their_classes(dataset)

    def test_range_without_leading_zeros(self, tmp_path: Path) -> None:
        for index in range(8, 12):
            shard(tmp_path / f"{index}.tar", index, 1, classes=2)
        dataset = index_dataset(f"{tmp_path}/{{8..11}}.tar")
        assert set(names(dataset.train) + names(dataset.val)) == {f"{n}.tar/{n:06}.png" for n in range(8, 12)}

    def test_shards_without_validation_are_split_by_hash_except_test(self, tmp_path: Path) -> None:
        shard(tmp_path / "train-0.tar", 0, 120)
        alone = index_dataset(tmp_path)
        assert alone.split == "hashed"
        assert sorted(names(alone.train) + names(alone.val)) == [f"train-0.tar/{n:06}.png" for n in range(120)]
        assert 0 < len(alone.val) < 60
        shard(tmp_path / "test-0.tar", 120, 9)
        with_test = index_dataset(tmp_path)
        assert (with_test.train, with_test.val) == (alone.train, alone.val)
        assert with_test.test is not None
        assert len(with_test.test) == 9

    def test_subsets_equal_those_of_folders(self, shards: Path) -> None:
        small = subset(index_dataset(shards), 2)
        assert sorted(small.train.targets) == [0, 0, 1, 1, 2, 2]
        assert set(names(small.train)) < set(names(index_dataset(shards).train))

    @pytest.mark.parametrize("kind", ["jpg", "JPEG", "webp", "ppm"])
    def test_all_image_types_are_found(self, tmp_path: Path, kind: str) -> None:
        fmt = {"jpg": "JPEG"}.get(kind, kind.upper())
        members = {
            name: content
            for n in range(4)
            for name, content in ((f"dir/{n}.{kind}", picture(9, fmt)), (f"dir/{n}.cls", f"{n % 2}\n".encode()))
        }
        dataset = index_dataset(write_tar(tmp_path / "a.tar", members))
        assert {sample.read().values.shape for sample in dataset.train.samples} == {(10, 12, 3)}

    def test_long_names_are_found_in_all_tar_formats(self, tmp_path: Path) -> None:
        for index, tar_format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
            key = "d" * 120 + "/ä" + "k" * 120
            members = {
                f"{key}{n}.{end}": data
                for n in range(4)
                for end, data in (("png", picture(n)), ("cls", b"%d" % (n % 2)))
            }
            dataset = index_dataset(write_tar(tmp_path / f"{index}/a.tar", members, tar_format))
            pixels = [sample.read().values[0, 0, 0] for sample in (*dataset.train.samples, *dataset.val.samples)]
            assert sorted(pixels) == [0, 1, 2, 3]

    def test_pairs_are_those_of_webdataset(self, tmp_path: Path) -> None:
        members = {
            f"{n}.{end}": data for n in range(4) for end, data in (("png", picture(n)), ("cls", b"%d" % (n % 2)))
        }
        members |= {"0.mask.png": picture(200), "9.mask.png": picture(201), ".hidden.png": picture(202), "readme": b""}
        dataset = index_dataset(write_tar(tmp_path / "a.tar", members))
        assert sorted(names(dataset.train) + names(dataset.val)) == [f"a.tar/{n}.png" for n in range(4)]


class TestLabels:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("classes.txt", "cat\nbig dog\nemu\n"),
            ("labels.txt", "cat\nbig dog\nemu"),
            ("classes.json", json.dumps(["cat", "big dog", "emu"])),
        ],
    )
    def test_labels_are_read_next_to_the_shards(self, shards: Path, name: str, content: str) -> None:
        (shards / name).write_text(content)
        assert index_dataset(shards).labels == ("cat", "big dog", "emu")
        assert index_dataset(f"{shards}/train-*.tar").labels == ("cat", "big dog", "emu")

    def test_too_few_labels_are_an_error(self, shards: Path) -> None:
        (shards / "classes.txt").write_text("cat\ndog\n")
        with pytest.raises(DataError, match=r"2 class names, but the shards have class 2"):
            index_dataset(shards)

    @pytest.mark.parametrize("content", ['{"cat": 0}', "[1, 2, 3]", "[oops"])
    def test_invalid_label_files_are_an_error(self, shards: Path, content: str) -> None:
        (shards / "classes.json").write_text(content)
        with pytest.raises(DataError, match=r"classes\.json .*Expected a list of class names"):
            index_dataset(shards)

    def test_images_without_class_are_skipped_and_reported(self, shards: Path) -> None:
        write_tar(shards / "train-0002.tar", {"stray.png": picture(1)})
        dataset = index_dataset(shards)
        assert len(dataset.train) == 30
        assert dataset.skipped == (SkippedSample("train-0002.tar/stray.png", "without a class"),)

    def test_unlabeled_shards_must_be_allowed(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "a.tar", {f"{n}.png": picture(n) for n in range(20)})
        with pytest.raises(DataError, match="20 images but no classes"):
            index_dataset(tmp_path)
        dataset = index_dataset(tmp_path, unlabeled_ok=True)
        assert dataset.labels == ()
        assert set(dataset.train.targets) == {UNLABELED}


class TestFaults:
    def test_damaged_image_is_skipped_by_name(self, tmp_path: Path) -> None:
        members = {
            f"{n}.{end}": data for n in range(6) for end, data in (("png", picture(n)), ("cls", b"%d" % (n % 2)))
        }
        members["0.png"], members["1.png"] = b"<html>", b""
        write_tar(tmp_path / "train.tar", members)
        write_tar(tmp_path / "val.tar", members)
        problems = load(index_dataset(tmp_path), SPEC).problems
        assert str(problems) == "4 of 12 samples: 2 not images (0.png, 0.png), 2 empty (1.png, 1.png), skipped"

    def test_missing_shard_makes_its_images_unreadable(self, shards: Path) -> None:
        dataset = index_dataset(shards)
        (shards / "val-0000.tar").unlink()
        assert {reason for _, reason in decode(dataset.val, SPEC).problems.skipped} == {"unreadable"}

    def test_fingerprint_depends_on_classes(self, shards: Path) -> None:
        before = index_dataset(shards).fingerprint
        shard(shards / "val-0000.tar", 30, 12, classes=2)
        assert index_dataset(shards).fingerprint != before

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("train-{0000..0009}.tar", r"no shard .*train-0002\.tar"),
            ("other-*.tar", r"No file matches .*other-\*\.tar"),
            ("train-{x}.tar", r"\{x\} in .* is not a range"),
            ("{val-{0..1},train}.tar", r"is not a range"),
            ("train-{3..1}.tar", r"\{3\.\.1\} in .* is not a range"),
            ("{val,test}-0000.tar", "None of the shards .* training shard"),
        ],
    )
    def test_invalid_patterns(self, shards: Path, pattern: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            index_dataset(f"{shards}/{pattern}")

    @pytest.mark.parametrize("content", [b"cat", b"-1", b"", b"1.5"])
    def test_invalid_class_index(self, tmp_path: Path, content: bytes) -> None:
        write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": content})
        with pytest.raises(DataError, match=r"1\.cls in .*a\.tar contains .* class index"):
            index_dataset(tmp_path)

    def test_single_class(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="only one class, 0"):
            index_dataset(shard(tmp_path / "a.tar", 0, 5, classes=1))

    def test_class_missing_in_training(self, tmp_path: Path) -> None:
        shard(tmp_path / "train-0.tar", 0, 4, classes=2)
        shard(tmp_path / "val-0.tar", 4, 8, classes=4)
        with pytest.raises(DataError, match=r"no training images of class 2, 3, .* missing training shards"):
            index_dataset(tmp_path)

    def test_training_images_without_classes(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "train-0.tar", {"1.png": picture(1)})
        shard(tmp_path / "val-0.tar", 4, 8, classes=2)
        with pytest.raises(DataError, match=r"no training images of class 0, 1, .* missing \.cls"):
            index_dataset(tmp_path)

    @pytest.mark.parametrize("how", ["cut", "compressed", "empty", "other"])
    def test_damaged_tar_file(self, tmp_path: Path, how: str) -> None:
        path = shard(tmp_path / "a.tar", 0, 9)
        content = path.read_bytes()
        if how == "compressed":
            with tarfile.open(path, "w:gz") as archive:
                archive.addfile(tarfile.TarInfo("a.png"))
        else:
            path.write_bytes({"cut": content[:5000], "empty": b"", "other": b"not tar" * 500}[how])
        with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar file"):
            index_dataset(path)

    def test_tar_of_class_folders_suggests_extraction(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "photos.tar", {f"{label}/{n}.png": picture(n) for label in "ab" for n in range(3)})
        with pytest.raises(DataError, match="extract it with `tar -xf`"):
            index_dataset(tmp_path / "photos.tar")

    def test_tar_next_to_class_folders_is_ignored(self, tmp_path: Path) -> None:
        shard(tmp_path / "backup.tar", 0, 3)
        for label in ("cat", "dog"):
            (tmp_path / label).mkdir()
            for index in range(3):
                (tmp_path / label / f"{index}.png").write_bytes(picture(index))
        assert index_dataset(tmp_path).labels == ("cat", "dog")
