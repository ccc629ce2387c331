"""WebDataset shards are one data set like any other: every picture in its place, with its class, on its side."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge.data import UNLABELLED, Collection, Skipped, Split, decode, load, scan, subset
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import ImageInput

SPEC = ImageInput(height=8, width=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def picture(value: int, kind: str = "PNG") -> bytes:
    """Red is `value` everywhere, so that a picture can be told from any other."""
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
    """Pictures `first`, `first + 1`, …; each of the class that is the rest of its number."""
    members = {}
    for number in range(first, first + count):
        members[f"{number:06}.cls"] = str(number % classes).encode()
        members[f"{number:06}.png"] = picture(number)
        members[f"{number:06}.json"] = b"{}"
    return write_tar(path, members)


def names(split: Split) -> list[str]:
    return [sample.name for sample in split.samples]


def assert_pictures_have_their_classes(collection: Collection, classes: int = 3) -> None:
    for split in (collection.train, collection.val, *([collection.test] if collection.test else [])):
        decoded = decode(split, SPEC)
        numbers = [int(Path(sample.name).stem) for sample in decoded.samples]
        np.testing.assert_array_equal(decoded.images[:, 4, 4, 0], numbers)
        np.testing.assert_array_equal(decoded.targets, np.array(numbers) % classes)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """30, 12 and 6 pictures to train on, validate and test with, in four tar files."""
    shard(tmp_path / "train-0000.tar", 0, 15)
    shard(tmp_path / "train-0001.tar", 15, 15)
    shard(tmp_path / "val-0000.tar", 30, 12)
    shard(tmp_path / "test-0000.tar", 42, 6)
    return tmp_path


class TestListing:
    def test_a_folder_of_shards_is_divided_as_their_names_say(self, shards: Path) -> None:
        collection = scan(shards)
        assert collection.split == "shards"
        assert names(collection.train) == [f"train-000{n // 15}.tar/{n:06}.png" for n in range(30)]
        assert names(collection.val) == [f"val-0000.tar/{n:06}.png" for n in range(30, 42)]
        assert collection.test is not None
        assert names(collection.test) == [f"test-0000.tar/{n:06}.png" for n in range(42, 48)]
        assert collection.labels == ("0", "1", "2")
        assert_pictures_have_their_classes(collection)

    @pytest.mark.parametrize(
        "pattern",
        [
            "{train,val,test}-*.tar",
            "*.tar",
            "*.tar::val-*.tar",
            "train-{0000..0001}.tar::val-0000.tar::test-0000.tar",
        ],
    )
    def test_patterns_mean_what_they_mean_to_webdataset(
        self, shards: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(shards)
        collection, folder = scan(pattern), scan(shards)
        assert (collection.train, collection.val, collection.test) == (folder.train, folder.val, folder.test)
        assert collection.fingerprint == folder.fingerprint
        monkeypatch.chdir("/")
        assert scan(collection.source) == collection

    def test_sides_may_be_folders(self, tmp_path: Path) -> None:
        shard(tmp_path / "train/0.tar", 0, 12)
        shard(tmp_path / "validation/0.tar", 12, 6)
        collection = scan(tmp_path)
        assert (len(collection.train), len(collection.val), collection.test) == (12, 6, None)
        assert_pictures_have_their_classes(collection)

    def test_a_range_without_zeros_counts_without_zeros(self, tmp_path: Path) -> None:
        for index in range(8, 12):
            shard(tmp_path / f"{index}.tar", index, 1, classes=2)
        collection = scan(f"{tmp_path}/{{8..11}}.tar")
        assert set(names(collection.train) + names(collection.val)) == {f"{n}.tar/{n:06}.png" for n in range(8, 12)}

    def test_undivided_shards_are_divided_by_hash_and_test_shards_stay_out_of_it(self, tmp_path: Path) -> None:
        shard(tmp_path / "train-0.tar", 0, 120)
        alone = scan(tmp_path)
        assert alone.split == "hashed"
        assert sorted(names(alone.train) + names(alone.val)) == [f"train-0.tar/{n:06}.png" for n in range(120)]
        assert 0 < len(alone.val) < 60
        shard(tmp_path / "test-0.tar", 120, 9)
        with_test = scan(tmp_path)
        assert (with_test.train, with_test.val) == (alone.train, alone.val)
        assert with_test.test is not None
        assert len(with_test.test) == 9

    def test_subsets_are_drawn_as_from_folders(self, shards: Path) -> None:
        small = subset(scan(shards), 2)
        assert sorted(small.train.targets) == [0, 0, 1, 1, 2, 2]
        assert set(names(small.train)) < set(names(scan(shards).train))

    @pytest.mark.parametrize("kind", ["jpg", "JPEG", "webp", "ppm"])
    def test_every_kind_of_picture_counts(self, tmp_path: Path, kind: str) -> None:
        fmt = {"jpg": "JPEG"}.get(kind, kind.upper())
        members = {
            name: content
            for n in range(4)
            for name, content in ((f"dir/{n}.{kind}", picture(9, fmt)), (f"dir/{n}.cls", f"{n % 2}\n".encode()))
        }
        collection = scan(write_tar(tmp_path / "a.tar", members))
        assert {sample.read().pixels.shape for sample in collection.train.samples} == {(10, 12, 3)}

    def test_long_names_of_every_tar_format_are_found(self, tmp_path: Path) -> None:
        for index, tar_format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
            key = "d" * 120 + "/ä" + "k" * 120
            members = {
                f"{key}{n}.{end}": data
                for n in range(4)
                for end, data in (("png", picture(n)), ("cls", b"%d" % (n % 2)))
            }
            collection = scan(write_tar(tmp_path / f"{index}/a.tar", members, tar_format))
            pixels = [sample.read().pixels[0, 0, 0] for sample in (*collection.train.samples, *collection.val.samples)]
            assert sorted(pixels) == [0, 1, 2, 3]

    def test_only_what_webdataset_would_pair_is_paired(self, tmp_path: Path) -> None:
        members = {
            f"{n}.{end}": data for n in range(4) for end, data in (("png", picture(n)), ("cls", b"%d" % (n % 2)))
        }
        members |= {"0.mask.png": picture(200), "9.mask.png": picture(201), ".hidden.png": picture(202), "readme": b""}
        collection = scan(write_tar(tmp_path / "a.tar", members))
        assert sorted(names(collection.train) + names(collection.val)) == [f"a.tar/{n}.png" for n in range(4)]


class TestLabels:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("classes.txt", "cat\nbig dog\nemu\n"),
            ("labels.txt", "cat\nbig dog\nemu"),
            ("classes.json", json.dumps(["cat", "big dog", "emu"])),
        ],
    )
    def test_they_are_read_beside_the_shards(self, shards: Path, name: str, content: str) -> None:
        (shards / name).write_text(content)
        assert scan(shards).labels == ("cat", "big dog", "emu")
        assert scan(f"{shards}/train-*.tar").labels == ("cat", "big dog", "emu")

    def test_too_few_are_an_error(self, shards: Path) -> None:
        (shards / "classes.txt").write_text("cat\ndog\n")
        with pytest.raises(DataError, match=r"names 2 classes, but the shards have class 2"):
            scan(shards)

    @pytest.mark.parametrize("content", ['{"cat": 0}', "[1, 2, 3]", "[oops"])
    def test_other_json_is_an_error(self, shards: Path, content: str) -> None:
        (shards / "classes.json").write_text(content)
        with pytest.raises(DataError, match=r"classes\.json .*Expected a list of class names"):
            scan(shards)

    def test_pictures_without_a_class_are_told_and_left_out(self, shards: Path) -> None:
        write_tar(shards / "train-0002.tar", {"stray.png": picture(1)})
        collection = scan(shards)
        assert len(collection.train) == 30
        assert collection.skipped == (Skipped("train-0002.tar/stray.png", "without a class"),)

    def test_pictures_without_any_class_need_permission(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "a.tar", {f"{n}.png": picture(n) for n in range(20)})
        with pytest.raises(DataError, match="20 pictures but no classes"):
            scan(tmp_path)
        collection = scan(tmp_path, unlabelled_ok=True)
        assert collection.labels == ()
        assert set(collection.train.targets) == {UNLABELLED}


class TestFaults:
    def test_a_damaged_picture_is_skipped_by_name(self, tmp_path: Path) -> None:
        members = {
            f"{n}.{end}": data for n in range(6) for end, data in (("png", picture(n)), ("cls", b"%d" % (n % 2)))
        }
        members["0.png"], members["1.png"] = b"<html>", b""
        write_tar(tmp_path / "train.tar", members)
        write_tar(tmp_path / "val.tar", members)
        problems = load(scan(tmp_path), SPEC).problems
        assert str(problems) == "4 of 12 files: 2 not images (0.png, 0.png), 2 empty (1.png, 1.png), skipped"

    def test_a_shard_that_vanished_is_a_fault_of_its_pictures(self, shards: Path) -> None:
        collection = scan(shards)
        (shards / "val-0000.tar").unlink()
        assert {reason for _, reason in decode(collection.val, SPEC).problems.skipped} == {"unreadable"}

    def test_the_fingerprint_notices_classes(self, shards: Path) -> None:
        before = scan(shards).fingerprint
        shard(shards / "val-0000.tar", 30, 12, classes=2)
        assert scan(shards).fingerprint != before

    @pytest.mark.parametrize(
        ("pattern", "told"),
        [
            ("train-{0000..0009}.tar", r"no shard .*train-0002\.tar"),
            ("other-*.tar", r"No file matches .*other-\*\.tar"),
            ("train-{x}.tar", r"\{x\} in .* is no range"),
            ("{val-{0..1},train}.tar", r"is no range"),
            ("train-{3..1}.tar", r"\{3\.\.1\} in .* is no range"),
            ("{val,test}-0000.tar", "None of the shards .* is for training"),
        ],
    )
    def test_patterns_that_mean_nothing(self, shards: Path, pattern: str, told: str) -> None:
        with pytest.raises(DataError, match=told):
            scan(f"{shards}/{pattern}")

    @pytest.mark.parametrize("content", [b"cat", b"-1", b"", b"1.5"])
    def test_a_class_that_is_no_index(self, tmp_path: Path, content: bytes) -> None:
        write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": content})
        with pytest.raises(DataError, match=r"1\.cls in .*a\.tar holds .* index of a class"):
            scan(tmp_path)

    def test_one_class_only(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="only one class, 0"):
            scan(shard(tmp_path / "a.tar", 0, 5, classes=1))

    def test_a_class_that_only_another_side_has(self, tmp_path: Path) -> None:
        shard(tmp_path / "train-0.tar", 0, 4, classes=2)
        shard(tmp_path / "val-0.tar", 4, 8, classes=4)
        with pytest.raises(DataError, match=r"no picture to train on of class 2, 3, .* missing training shards"):
            scan(tmp_path)

    def test_training_pictures_that_all_lack_their_class(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "train-0.tar", {"1.png": picture(1)})
        shard(tmp_path / "val-0.tar", 4, 8, classes=2)
        with pytest.raises(DataError, match=r"no picture to train on of class 0, 1, .* missing \.cls"):
            scan(tmp_path)

    @pytest.mark.parametrize("how", ["cut", "compressed", "empty", "other"])
    def test_a_file_that_is_no_sound_tar(self, tmp_path: Path, how: str) -> None:
        path = shard(tmp_path / "a.tar", 0, 9)
        content = path.read_bytes()
        if how == "compressed":
            with tarfile.open(path, "w:gz") as archive:
                archive.addfile(tarfile.TarInfo("a.png"))
        else:
            path.write_bytes({"cut": content[:5000], "empty": b"", "other": b"no tar" * 500}[how])
        with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar file"):
            scan(path)

    def test_a_tar_of_class_folders_is_to_be_unpacked(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "photos.tar", {f"{label}/{n}.png": picture(n) for label in "ab" for n in range(3)})
        with pytest.raises(DataError, match="unpack it with `tar -xf`"):
            scan(tmp_path / "photos.tar")

    def test_a_tar_beside_class_folders_does_not_hide_them(self, tmp_path: Path) -> None:
        shard(tmp_path / "backup.tar", 0, 3)
        for label in ("cat", "dog"):
            (tmp_path / label).mkdir()
            for index in range(3):
                (tmp_path / label / f"{index}.png").write_bytes(picture(index))
        assert scan(tmp_path).labels == ("cat", "dog")
