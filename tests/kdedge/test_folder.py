"""A folder of pictures becomes labels and two sides, or an error that says what to change."""

import shutil
import unicodedata
from pathlib import Path

import pytest

from kdedge.data import UNLABELLED, Split, scan, subset
from kdedge.data.folder import ImageFolder
from kdedge_runtime.errors import DataError, UsageError


def make(root: Path, *names: str) -> Path:
    """Files of one byte: scanning opens no picture."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def classes(root: Path, count: int = 50, labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    return make(root, *(f"{label}/{index:03}.jpg" for label in labels for index in range(count)))


def names(split: Split, root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in split.paths}


def assert_targets_follow_folders(folder: ImageFolder, split: Split) -> None:
    assert [folder.labels[target] for target in split.targets] == [path.parent.name for path in split.paths]


class TestLayouts:
    @pytest.mark.parametrize("val", ["val", "valid", "validation", "test", "Test"])
    def test_the_users_own_folders_are_taken_as_they_are(self, tmp_path: Path, val: str) -> None:
        make(tmp_path, "train/b/1.jpg", "train/a/2.png", "train/a/3.webp", f"{val}/a/4.jpg", f"{val}/b/5.jpg")
        folder = scan(tmp_path)
        assert folder.split == "folders"
        assert folder.labels == ("a", "b")
        assert names(folder.train, tmp_path) == {"train/a/2.png", "train/a/3.webp", "train/b/1.jpg"}
        assert names(folder.val, tmp_path) == {f"{val}/a/4.jpg", f"{val}/b/5.jpg"}
        assert_targets_follow_folders(folder, folder.train)
        assert_targets_follow_folders(folder, folder.val)

    def test_val_is_preferred_to_test(self, tmp_path: Path) -> None:
        make(tmp_path, *(f"{side}/{label}/1.jpg" for side in ("train", "val", "test") for label in "ab"))
        assert names(scan(tmp_path).val, tmp_path) == {"val/a/1.jpg", "val/b/1.jpg"}

    def test_class_folders_are_divided(self, tmp_path: Path) -> None:
        folder = scan(classes(tmp_path, 200), val_fraction=0.2)
        assert folder.split == "hashed"
        assert names(folder.train, tmp_path) | names(folder.val, tmp_path) == names(
            Split.of_classes({0: sorted(tmp_path.rglob("*.jpg"))}), tmp_path
        )
        assert not set(folder.train.paths) & set(folder.val.paths)
        assert_targets_follow_folders(folder, folder.train)
        assert_targets_follow_folders(folder, folder.val)
        for target in (0, 1):
            assert 0.12 < folder.val.targets.count(target) / 200 < 0.28  # 3 standard deviations of the binomial

    def test_folders_inside_a_class_folder_belong_to_it(self, tmp_path: Path) -> None:
        make(tmp_path, "cat/images/1.jpg", "cat/2.jpg", "dog/images/deep/3.jpg", "dog/4.jpg")
        folder = scan(tmp_path)
        assert folder.labels == ("cat", "dog")
        assert len(folder.train) + len(folder.val) == 4

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        assert scan(classes(tmp_path, 3, ("bus", "car", "train"))).labels == ("bus", "car", "train")

    def test_pictures_without_classes_need_permission(self, tmp_path: Path) -> None:
        make(tmp_path, *(f"{index}.jpg" for index in range(40)))
        with pytest.raises(DataError, match="40 pictures but no class folders"):
            scan(tmp_path)
        folder = scan(tmp_path, unlabelled_ok=True)
        assert folder.labels == ()
        assert set(folder.train.targets + folder.val.targets) == {UNLABELLED}
        assert len(folder.train) + len(folder.val) == 40
        assert 0 < len(folder.val) < 20

    def test_companions_are_silent_and_oddities_are_not(self, tmp_path: Path) -> None:
        classes(tmp_path, 2)
        make(tmp_path, "boxes.csv", ".DS_Store", "cat/Thumbs.db", "cat/._000.jpg", "__MACOSX/cat/0.jpg", "LICENSE")
        make(tmp_path, "cat/clip.mp4", "stray.jpg")
        folder = scan(tmp_path)
        assert len(folder.train) + len(folder.val) == 4
        assert {(skipped.path.name, skipped.reason) for skipped in folder.skipped} == {
            ("clip.mp4", "of unknown type"),
            ("stray.jpg", "outside a class folder"),
        }


class TestHashedSplit:
    def test_it_does_not_depend_on_where_the_folder_lies(self, tmp_path: Path) -> None:
        classes(tmp_path / "here")
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        here, there = scan(tmp_path / "here"), scan(tmp_path / "there")
        assert names(here.val, tmp_path / "here") == names(there.val, tmp_path / "there")
        assert here.fingerprint == there.fingerprint

    def test_added_files_and_classes_move_no_other_file(self, tmp_path: Path) -> None:
        before = scan(classes(tmp_path))
        make(tmp_path, *(f"cat/new{index}.jpg" for index in range(30)), *(f"ant/{index}.jpg" for index in range(9)))
        after = scan(tmp_path)
        assert set(before.train.paths) < set(after.train.paths)
        assert set(before.val.paths) < set(after.val.paths)

    def test_another_seed_divides_differently(self, tmp_path: Path) -> None:
        classes(tmp_path)
        assert scan(tmp_path, seed=1).val.paths == scan(tmp_path, seed=1).val.paths != scan(tmp_path).val.paths

    @pytest.mark.parametrize("val_fraction", [0.001, 0.5, 0.999])
    def test_two_images_of_a_class_go_to_different_sides(self, tmp_path: Path, val_fraction: float) -> None:
        folder = scan(classes(tmp_path, 2), val_fraction=val_fraction)
        assert folder.train.targets == folder.val.targets == (0, 1)

    def test_a_single_image_is_for_training(self, tmp_path: Path) -> None:
        folder = scan(make(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg"), val_fraction=0.999)
        assert folder.train.targets == (0, 1)
        assert folder.val.targets == (1,)

    def test_accents_are_the_same_however_the_system_stores_them(self, tmp_path: Path) -> None:
        sides = []
        for form in ("NFC", "NFD"):
            root = make(
                tmp_path / form, *(unicodedata.normalize(form, f"é{i}/ü{j}.jpg") for i in "ab" for j in range(20))
            )
            folder = scan(root)
            sides.append({unicodedata.normalize("NFC", name) for name in names(folder.val, root)})
        assert sides[0] == sides[1]


class TestFingerprint:
    def test_a_link_to_nowhere_is_left_to_the_decoder(self, tmp_path: Path) -> None:
        (classes(tmp_path, 3) / "cat/dead.jpg").symlink_to(tmp_path / "gone.jpg")
        folder = scan(tmp_path)
        assert "cat/dead.jpg" in names(folder.train, tmp_path) | names(folder.val, tmp_path)

    def test_it_notices_names_and_sizes_and_ignores_companions(self, tmp_path: Path) -> None:
        first = scan(classes(tmp_path)).fingerprint
        assert len(bytes.fromhex(first)) == 32
        make(tmp_path, "boxes.csv")
        assert scan(tmp_path).fingerprint == first
        (tmp_path / "cat/000.jpg").write_bytes(b"xx")
        second = scan(tmp_path).fingerprint
        (tmp_path / "cat/000.jpg").rename(tmp_path / "cat/zzz.jpg")
        assert len({first, second, scan(tmp_path).fingerprint}) == 3


class TestSubset:
    def test_each_class_keeps_its_share_and_validation_is_whole(self, tmp_path: Path) -> None:
        folder = scan(make(classes(tmp_path), "few/1.jpg", "few/2.jpg"))
        small = subset(folder, 5)
        assert [small.train.targets.count(target) for target in range(3)] == [5, 5, 1]
        assert small.val == folder.val
        assert set(small.train.paths) < set(folder.train.paths)
        assert_targets_follow_folders(small, small.train)

    def test_small_draws_are_part_of_large_ones_and_depend_on_the_seed(self, tmp_path: Path) -> None:
        folder = scan(classes(tmp_path))
        assert set(subset(folder, 5).train.paths) < set(subset(folder, 20).train.paths)
        assert subset(folder, 5).train == subset(folder, 5).train
        assert subset(folder, 5, seed=1).train != subset(folder, 5).train

    def test_nothing_is_no_training_set(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="at least 1"):
            subset(scan(classes(tmp_path)), 0)


class TestRefusals:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
            scan(tmp_path / "nowhere")

    @pytest.mark.parametrize(("name", "command"), [("a.zip", "unzip"), ("a.tar.gz", "tar -xf"), ("a.tgz", "tar -xf")])
    def test_an_archive_is_to_be_unpacked(self, tmp_path: Path, name: str, command: str) -> None:
        with pytest.raises(DataError, match=f"archive: unpack it with `{command}"):
            scan(make(tmp_path, name) / name)

    def test_a_single_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is a file, not a folder"):
            scan(make(tmp_path, "a.jpg") / "a.jpg")

    @pytest.mark.parametrize("files", [(), ("notes.txt",), ("cat/notes.txt",)])
    def test_no_images_at_all(self, tmp_path: Path, files: tuple[str, ...]) -> None:
        with pytest.raises(DataError, match="has no images"):
            scan(make(tmp_path, *files))

    def test_one_class_only(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"only one class, 'cat'.*two or more"):
            scan(make(tmp_path, "cat/1.jpg", "cat/2.jpg"))

    def test_an_empty_class_is_named(self, tmp_path: Path) -> None:
        (classes(tmp_path) / "emu").mkdir()
        with pytest.raises(DataError, match="without images: 'emu'"):
            scan(tmp_path)

    def test_classes_that_differ_between_the_sides_are_named(self, tmp_path: Path) -> None:
        make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "val/d/1.jpg")
        with pytest.raises(DataError, match=r"'c' only in train/; 'd' only in val/"):
            scan(tmp_path)

    def test_training_without_validation(self, tmp_path: Path) -> None:
        make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "holdout/a/1.jpg", "holdout/b/1.jpg")
        with pytest.raises(DataError, match="no validation folder"):
            scan(tmp_path)

    @pytest.mark.parametrize("fraction", [0, 1, -0.5, 20])
    def test_an_impossible_validation_fraction(self, tmp_path: Path, fraction: float) -> None:
        with pytest.raises(UsageError, match="between 0 and 1"):
            scan(classes(tmp_path), val_fraction=fraction)
