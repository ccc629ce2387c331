"""Indexing of image folders: labels, splits and errors."""

import os
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from kdedge.data import UNLABELED, DatasetIndex, Split, index_dataset, subset
from kdedge_runtime.errors import DataError, UsageError


def make(root: Path, *names: str) -> Path:
    """Create files of one byte, since indexing opens no image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def classes(root: Path, count: int = 50, labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    return make(root, *(f"{label}/{index:03}.jpg" for label in labels for index in range(count)))


def sides(root: Path, **counts: int) -> Path:
    """Create `SPLIT/CLASS/INDEX.jpg` for two classes."""
    pictures = [f"{side}/{label}/{i}.jpg" for side, count in counts.items() for label in "ab" for i in range(count)]
    return make(root, *pictures)


def names(split: Split | None) -> set[str]:
    assert split is not None
    return {sample.name for sample in split.samples}


def assert_targets_follow_folders(folder: DatasetIndex, split: Split) -> None:
    assert [folder.labels[target] for target in split.targets] == [s.name.split("/")[-2] for s in split.samples]


class TestLayouts:
    @pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
    def test_split_folders_are_used(self, tmp_path: Path, val: str) -> None:
        make(tmp_path, "train/b/1.jpg", "train/a/2.png", "train/a/3.webp", f"{val}/a/4.jpg", f"{val}/b/5.jpg")
        folder = index_dataset(tmp_path)
        assert folder.split == "folders"
        assert folder.labels == ("a", "b")
        assert names(folder.train) == {"train/a/2.png", "train/a/3.webp", "train/b/1.jpg"}
        assert names(folder.val) == {f"{val}/a/4.jpg", f"{val}/b/5.jpg"}
        assert_targets_follow_folders(folder, folder.train)
        assert_targets_follow_folders(folder, folder.val)

    def test_class_folders_are_split_by_hash(self, tmp_path: Path) -> None:
        folder = index_dataset(classes(tmp_path, 200), val_fraction=0.2)
        assert folder.split == "hashed"
        assert folder.test is None
        everything = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")}
        assert names(folder.train) | names(folder.val) == everything
        assert not names(folder.train) & names(folder.val)
        assert_targets_follow_folders(folder, folder.train)
        assert_targets_follow_folders(folder, folder.val)
        for target in (0, 1):
            assert (
                0.12 < folder.val.targets.count(target) / 200 < 0.28
            )  # three standard deviations of the binomial distribution

    def test_subfolders_belong_to_their_class(self, tmp_path: Path) -> None:
        make(tmp_path, "cat/images/1.jpg", "cat/2.jpg", "dog/images/deep/3.jpg", "dog/4.jpg")
        folder = index_dataset(tmp_path)
        assert folder.labels == ("cat", "dog")
        assert len(folder.train) + len(folder.val) == 4

    def test_class_may_be_named_train(self, tmp_path: Path) -> None:
        assert index_dataset(classes(tmp_path, 3, ("bus", "car", "train"))).labels == ("bus", "car", "train")

    def test_unlabeled_images_must_be_allowed(self, tmp_path: Path) -> None:
        make(tmp_path, *(f"{index}.jpg" for index in range(40)))
        with pytest.raises(DataError, match="40 images but no class folders"):
            index_dataset(tmp_path)
        folder = index_dataset(tmp_path, unlabeled_ok=True)
        assert folder.labels == ()
        assert set(folder.train.targets + folder.val.targets) == {UNLABELED}
        assert len(folder.train) + len(folder.val) == 40
        assert 0 < len(folder.val) < 20

    def test_companion_files_are_ignored_and_others_reported(self, tmp_path: Path) -> None:
        classes(tmp_path, 2)
        make(tmp_path, "boxes.csv", ".DS_Store", "cat/Thumbs.db", "cat/._000.jpg", "__MACOSX/cat/0.jpg", "LICENSE")
        make(tmp_path, "cat/clip.mp4", "stray.jpg")
        folder = index_dataset(tmp_path)
        assert len(folder.train) + len(folder.val) == 4
        assert set(folder.skipped) == {
            ("cat/clip.mp4", "of unknown type"),
            ("stray.jpg", "outside a class folder"),
        }


class TestTestSide:
    def test_test_split_is_separate(self, tmp_path: Path) -> None:
        folder = index_dataset(sides(tmp_path, train=4, val=2, test=3))
        assert folder.split == "folders"
        assert names(folder.val) == {f"val/{label}/{index}.jpg" for label in "ab" for index in range(2)}
        assert names(folder.test) == {f"test/{label}/{index}.jpg" for label in "ab" for index in range(3)}
        assert folder.test is not None
        assert_targets_follow_folders(folder, folder.test)

    def test_validation_is_split_from_training_and_never_from_test(self, tmp_path: Path) -> None:
        folder = index_dataset(sides(tmp_path, train=50, test=20))
        assert folder.split == "hashed"
        assert {name.split("/")[0] for name in names(folder.train) | names(folder.val)} == {"train"}
        assert len(folder.train) + len(folder.val) == 100
        assert 0 < len(folder.val) < 50
        assert len(names(folder.test)) == 40

    def test_test_images_do_not_affect_training(self, tmp_path: Path) -> None:
        before = index_dataset(sides(tmp_path, train=50, test=3))
        after = index_dataset(sides(tmp_path, test=9))
        assert (before.train, before.val) == (after.train, after.val)

    def test_subset_keeps_the_test_split(self, tmp_path: Path) -> None:
        folder = index_dataset(sides(tmp_path, train=9, test=5))
        assert subset(folder, 2).test == folder.test

    def test_fingerprint_covers_the_test_split(self, tmp_path: Path) -> None:
        before = index_dataset(sides(tmp_path, train=4, val=2, test=2)).fingerprint
        (tmp_path / "test/a/0.jpg").write_bytes(b"another")
        assert index_dataset(tmp_path).fingerprint != before

    @pytest.mark.parametrize("layout", ["test/{}.jpg", "test/unknown/{}.jpg"])
    def test_unlabeled_test_images_are_reported_as_skipped(self, tmp_path: Path, layout: str) -> None:
        make(sides(tmp_path, train=9, val=2), *(layout.format(index) for index in range(3)))
        folder = index_dataset(tmp_path)
        assert folder.test is None
        assert folder.labels == ("a", "b")
        assert set(folder.skipped) == {(layout.format(index), "outside a class folder") for index in range(3)}

    def test_empty_test_folder_is_ignored(self, tmp_path: Path) -> None:
        (sides(tmp_path, train=4, val=2) / "test").mkdir()
        assert index_dataset(tmp_path).test is None

    def test_test_classes_must_match_training(self, tmp_path: Path) -> None:
        make(sides(tmp_path, train=4, val=2, test=2), "test/c/1.jpg")
        with pytest.raises(DataError, match=r"training and test differ: 'c' only in test/"):
            index_dataset(tmp_path)


class TestHashedSplit:
    def test_split_is_independent_of_the_folder_location(self, tmp_path: Path) -> None:
        classes(tmp_path / "here")
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        here, there = index_dataset(tmp_path / "here"), index_dataset(tmp_path / "there")
        assert names(here.val) == names(there.val)
        assert here.fingerprint == there.fingerprint

    def test_added_files_and_classes_do_not_move_others(self, tmp_path: Path) -> None:
        before = index_dataset(classes(tmp_path))
        make(tmp_path, *(f"cat/new{index}.jpg" for index in range(30)), *(f"ant/{index}.jpg" for index in range(9)))
        after = index_dataset(tmp_path)
        assert names(before.train) < names(after.train)
        assert names(before.val) < names(after.val)

    def test_seed_changes_the_split(self, tmp_path: Path) -> None:
        classes(tmp_path)
        assert index_dataset(tmp_path, seed=1).val == index_dataset(tmp_path, seed=1).val != index_dataset(tmp_path).val

    @pytest.mark.parametrize("val_fraction", [0.001, 0.5, 0.999])
    def test_two_images_of_a_class_are_split(self, tmp_path: Path, val_fraction: float) -> None:
        folder = index_dataset(classes(tmp_path, 2), val_fraction=val_fraction)
        assert folder.train.targets == folder.val.targets == (0, 1)

    def test_single_image_is_for_training(self, tmp_path: Path) -> None:
        folder = index_dataset(make(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg"), val_fraction=0.999)
        assert folder.train.targets == (0, 1)
        assert folder.val.targets == (1,)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
    def test_non_utf8_names_are_supported(self, tmp_path: Path) -> None:
        latin = [
            os.fsdecode(f"{side}/{label}/für.png".encode("latin-1")) for side in ("train", "val") for label in "aü"
        ]
        for name in latin:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        folder = index_dataset(tmp_path)
        assert folder.labels == ("\\xfc", "a")
        assert names(folder.train) == {"train/\\xfc/f\\xfcr.png", "train/a/f\\xfcr.png"}
        assert all(sample.read().values.shape == (8, 8, 3) for sample in folder.val.samples)

    def test_unicode_names_are_normalized(self, tmp_path: Path) -> None:
        val, labels = [], []
        for form in ("NFC", "NFD"):
            root = make(
                tmp_path / form, *(unicodedata.normalize(form, f"é{i}/ü{j}.jpg") for i in "ab" for j in range(20))
            )
            val.append(names(index_dataset(root).val))
            labels.append(index_dataset(root).labels)
        assert val[0] == val[1] and labels[0] == labels[1]


class TestLinks:
    def test_linked_folder_is_followed(self, tmp_path: Path) -> None:
        make(tmp_path / "data", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")
        make(tmp_path / "elsewhere", "3.jpg")
        (tmp_path / "data/cat/more").symlink_to(tmp_path / "elsewhere")
        folder = index_dataset(tmp_path / "data")
        assert "cat/more/3.jpg" in names(folder.train) | names(folder.val)

    @pytest.mark.parametrize("target", [".", "..", "deeper"])
    def test_cyclic_link_is_ignored(self, tmp_path: Path, target: str) -> None:
        data = make(tmp_path / "data", "cat/1.jpg", "cat/deeper/2.jpg", "dog/1.jpg", "dog/2.jpg")
        link = data / ("cat/deeper/again" if target == "deeper" else "cat/again")
        link.symlink_to(data / "cat/deeper" if target == "deeper" else target)
        folder = index_dataset(data)
        found = names(folder.train) | names(folder.val)
        assert found == {"cat/1.jpg", "cat/deeper/2.jpg", "dog/1.jpg", "dog/2.jpg"}


class TestFingerprint:
    def test_broken_link_is_left_to_the_decoder(self, tmp_path: Path) -> None:
        (classes(tmp_path, 3) / "cat/dead.jpg").symlink_to(tmp_path / "gone.jpg")
        folder = index_dataset(tmp_path)
        assert "cat/dead.jpg" in names(folder.train) | names(folder.val)

    def test_fingerprint_depends_on_names_and_sizes_only(self, tmp_path: Path) -> None:
        first = index_dataset(classes(tmp_path)).fingerprint
        assert len(bytes.fromhex(first)) == 32
        make(tmp_path, "boxes.csv")
        assert index_dataset(tmp_path).fingerprint == first
        (tmp_path / "cat/000.jpg").write_bytes(b"xx")
        second = index_dataset(tmp_path).fingerprint
        (tmp_path / "cat/000.jpg").rename(tmp_path / "cat/zzz.jpg")
        assert len({first, second, index_dataset(tmp_path).fingerprint}) == 3


class TestSubset:
    def test_subset_limits_each_class_and_keeps_validation(self, tmp_path: Path) -> None:
        folder = index_dataset(make(classes(tmp_path), "few/1.jpg", "few/2.jpg"))
        small = subset(folder, 5)
        assert [small.train.targets.count(target) for target in range(3)] == [5, 5, 1]
        assert small.val == folder.val
        assert names(small.train) < names(folder.train)
        assert_targets_follow_folders(small, small.train)

    def test_subsets_are_nested_and_depend_on_the_seed(self, tmp_path: Path) -> None:
        folder = index_dataset(classes(tmp_path))
        assert names(subset(folder, 5).train) < names(subset(folder, 20).train)
        assert subset(folder, 5).train == subset(folder, 5).train
        assert subset(folder, 5, seed=1).train != subset(folder, 5).train

    def test_empty_subset_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="at least 1"):
            subset(index_dataset(classes(tmp_path)), 0)


class TestSource:
    def test_source_is_valid_from_any_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(classes(tmp_path / "pets"))
        here = index_dataset(".")
        monkeypatch.chdir("/")
        there = index_dataset(here.source)
        assert (names(there.train), there.fingerprint) == (names(here.train), here.fingerprint)
        assert here.name == "pets"


class TestRefusals:
    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
            index_dataset(tmp_path / "nowhere")

    @pytest.mark.parametrize(("name", "command"), [("a.zip", "unzip"), ("a.tar.gz", "tar -xf"), ("a.tgz", "tar -xf")])
    def test_archive_suggests_extraction(self, tmp_path: Path, name: str, command: str) -> None:
        with pytest.raises(DataError, match=f"archive: extract it with `{command}"):
            index_dataset(make(tmp_path, name) / name)

    def test_single_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is a file, not a folder"):
            index_dataset(make(tmp_path, "a.jpg") / "a.jpg")

    @pytest.mark.parametrize("files", [(), ("notes.txt",), ("cat/notes.txt",)])
    def test_no_images(self, tmp_path: Path, files: tuple[str, ...]) -> None:
        with pytest.raises(DataError, match="has no images"):
            index_dataset(make(tmp_path, *files))

    def test_single_class(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"only one class, 'cat'.*two or more"):
            index_dataset(make(tmp_path, "cat/1.jpg", "cat/2.jpg"))

    def test_empty_class_is_named(self, tmp_path: Path) -> None:
        (classes(tmp_path) / "emu").mkdir()
        with pytest.raises(DataError, match="without images: 'emu'"):
            index_dataset(tmp_path)

    def test_classes_that_differ_between_splits_are_named(self, tmp_path: Path) -> None:
        make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "val/d/1.jpg")
        with pytest.raises(DataError, match=r"'c' only in train/; 'd' only in val/"):
            index_dataset(tmp_path)

    def test_missing_validation_folder(self, tmp_path: Path) -> None:
        make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "holdout/a/1.jpg", "holdout/b/1.jpg")
        with pytest.raises(DataError, match="no validation folder"):
            index_dataset(tmp_path)

    @pytest.mark.parametrize("fraction", [0, 1, -0.5, 20])
    def test_invalid_validation_fraction(self, tmp_path: Path, fraction: float) -> None:
        with pytest.raises(UsageError, match="between 0 and 1"):
            index_dataset(classes(tmp_path), val_fraction=fraction)
