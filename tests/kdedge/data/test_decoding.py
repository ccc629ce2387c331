"""Decoding keeps images and targets aligned, and reports every unusable file once."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge.data import FileSample, SkippedSample, SkippedSamples, Split, decode, index_dataset, load, typical_size
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.images import read_image

SPEC = ImageInput(height=8, width=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def photo(path: Path, value: int, size: tuple[int, int] = (32, 32)) -> Path:
    """Write an image whose red channel is `value`, so that its target can be read from its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 128)).save(path)
    return path


def files(*paths: Path) -> tuple[FileSample, ...]:
    return tuple(FileSample(path.name, str(path)) for path in paths)


def spoil(path: Path, how: str) -> Path:
    if how == "truncated":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        path.write_bytes({"empty": b"", "not an image": b"<html>404</html>"}[how])
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Split:
    """60 images whose red value is their target; every third file is damaged."""
    paths = [photo(tmp_path / f"{index:02}.png", index) for index in range(60)]
    for index in range(0, 60, 3):
        spoil(paths[index], ("truncated", "empty", "not an image")[index // 3 % 3])
    return Split(files(*paths), tuple(range(60)))


def test_targets_and_samples_stay_aligned_when_files_are_dropped(mixed: Split) -> None:
    decoded = decode(mixed, SPEC, workers=2)
    kept = [index for index in range(60) if index % 3]
    np.testing.assert_array_equal(decoded.targets, kept)
    np.testing.assert_array_equal(decoded.samples[:, 4, 4, 0], kept)
    assert [sample.name for sample in decoded.stored] == [f"{index:02}.png" for index in kept]
    assert decoded.samples.dtype == np.uint8
    assert decoded.targets.dtype == np.int64


def test_dropped_files_are_reported_with_reasons(mixed: Split) -> None:
    problems = decode(mixed, SPEC).problems
    assert list(problems.skipped) == [
        (f"{index:02}.png", ("truncated", "empty", "not an image")[index // 3 % 3]) for index in range(0, 60, 3)
    ]


def test_images_are_preprocessed_as_on_the_device(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spec = ImageInput(height=24, width=40, mean=(0, 0, 0), std=(1, 1, 1), crop_fraction=0.8, interpolation="bicubic")
    paths = []
    for index, size in enumerate([(30, 90, 3), (90, 30, 3), (24, 40, 3), (200, 300, 3)]):
        paths.append(tmp_path / f"{index}.jpg")
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(paths[-1])
    decoded = decode(Split(files(*paths), (0, 1, 0, 1)), spec)
    np.testing.assert_array_equal(decoded.samples, [spec.preprocess(read_image(path)) for path in paths])


def test_result_is_independent_of_threads(mixed: Split) -> None:
    one, four = decode(mixed, SPEC, workers=1), decode(mixed, SPEC, workers=4)
    np.testing.assert_array_equal(one.samples, four.samples)
    assert one.stored == four.stored
    assert one.problems == four.problems


def test_grayscale_images_are_kept_and_reported(tmp_path: Path) -> None:
    Image.new("L", (9, 9), 77).save(tmp_path / "grey.png")
    decoded = decode(Split(files(tmp_path / "grey.png", photo(tmp_path / "red.png", 200)), (3, 4)), SPEC)
    assert (decoded.samples[0] == 77).all()
    assert [name for name, _ in decoded.problems.converted] == ["grey.png"]
    assert str(decoded.problems) == "1 of 2 samples: 1 grayscale, read as RGB"


def test_progress_reaches_the_total(mixed: Split) -> None:
    calls: list[tuple[int, int]] = []
    decode(mixed, SPEC, progress=lambda step, *call: calls.append(call))
    assert calls == [(done, 60) for done in range(1, 61)]


def test_only_unreadable_files_give_an_empty_array(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    decoded = decode(Split(files(tmp_path / "a.png"), (0,)), SPEC)
    assert decoded.samples.shape == (0, 8, 8, 3)
    assert len(decoded) == 0


def test_unreadable_file_does_not_double_memory(mixed: Split) -> None:
    spec = ImageInput(height=128, width=128, mean=(0, 0, 0), std=(1, 1, 1))
    tracemalloc.start()
    decoded = decode(mixed, spec, workers=1)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(decoded.samples[:, 64, 64, 0], decoded.targets)
    assert peak_bytes < 1.3 * len(mixed) * 128 * 128 * 3


class TestProblems:
    def test_report_is_one_line_with_two_names_per_reason(self) -> None:
        skipped = [SkippedSample(f"train/cat/{name}", "truncated") for name in ("c.jpg", "a.jpg", "b.jpg")]
        skipped += [
            SkippedSample("d.jpg", "empty"),
            SkippedSample("e.jpg", "not an image"),
            SkippedSample("f.jpg", "not an image"),
        ]
        gray = tuple(SkippedSample(f"{index}.jpg", "grayscale, read as RGB") for index in range(6))
        problems = SkippedSamples(3000, tuple(skipped[:2])) + SkippedSamples(114, tuple(skipped[2:]), gray)
        assert str(problems) == (
            "12 of 3,114 samples: 3 truncated (a.jpg, b.jpg, …), 1 empty (d.jpg), 2 not images (e.jpg, f.jpg), "
            "skipped; 6 grayscale, read as RGB"
        )

    def test_readable_files_are_no_problem(self) -> None:
        assert not SkippedSamples(5)
        assert SkippedSamples(5, converted=(SkippedSample("a.jpg", "grayscale, read as RGB"),))


class TestLoad:
    def data(self, root: Path) -> Path:
        for side, count in (("train", 6), ("val", 3)):
            for label, value in (("low", 50), ("high", 200)):
                for index in range(count):
                    photo(root / side / label / f"{index}.png", value)
        return root

    def test_both_splits_are_labeled_by_folder(self, tmp_path: Path) -> None:
        spoil(self.data(tmp_path) / "train/high/0.png", "truncated")
        spoil(tmp_path / "val/low/1.png", "empty")
        (tmp_path / "train/low/clip.mov").touch()
        calls: list[tuple[int, int]] = []
        folder = index_dataset(tmp_path)
        dataset = load(folder, SPEC, progress=lambda step, *call: calls.append(call))
        assert dataset.labels == ("high", "low")
        assert dataset.fingerprint == folder.fingerprint
        for side, count in ((dataset.train, 11), (dataset.val, 5)):
            assert len(side) == count
            np.testing.assert_array_equal(side.samples[:, 0, 0, 0], np.where(side.targets == 0, 200, 50))
        assert calls == [(done, 18) for done in range(1, 19)]
        assert str(dataset.problems) == (
            "3 of 19 samples: 1 of unknown type (clip.mov), 1 truncated (0.png), 1 empty (1.png), skipped"
        )

    def test_test_split_is_not_read(self, tmp_path: Path) -> None:
        for label in ("low", "high"):
            spoil(photo(self.data(tmp_path) / "test" / label / "0.png", 9), "truncated")
        folder = index_dataset(tmp_path)
        assert not load(folder, SPEC).problems
        assert folder.test is not None
        assert len(decode(folder.test, SPEC).problems.skipped) == 2

    def test_class_without_readable_images_is_an_error(self, tmp_path: Path) -> None:
        for path in (self.data(tmp_path) / "val/low").iterdir():
            spoil(path, "empty")
        with pytest.raises(DataError, match=r"No validation sample of class 'low' .*3 empty"):
            load(index_dataset(tmp_path), SPEC)

    def test_one_image_per_class_leaves_none_for_validation(self, tmp_path: Path) -> None:
        for label in ("low", "high"):
            photo(tmp_path / label / "0.png", 50)
        with pytest.raises(DataError, match="none is left for validation"):
            load(index_dataset(tmp_path), SPEC)


class TestTypicalSize:
    def test_typical_size_is_the_median_shorter_side(self, tmp_path: Path) -> None:
        sizes = [(30, 500), (500, 40), (64, 64), (70, 90), (100, 100)]
        paths = [photo(tmp_path / f"{index}.png", 0, size) for index, size in enumerate(sizes)]
        paths.append(spoil(tmp_path / "bad.png", "not an image"))
        assert typical_size(Split(files(*paths), (0,) * 6)) == 64

    def test_typical_size_samples_evenly(self, tmp_path: Path) -> None:
        paths = [photo(tmp_path / f"{index:02}.png", 0, (10, 10) if index % 10 else (20, 20)) for index in range(40)]
        assert typical_size(Split(files(*paths), (0,) * 40), count=4) == 20

    def test_no_readable_image_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="can be read"):
            typical_size(Split(files(spoil(tmp_path / "a.png", "empty")), (0,)))
