"""Unlabeled samples are selected without duplicates, near-duplicates of footage and held-out content."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge.data import FileSample, SkippedSample, Split, StoredSample
from kdedge.data.perceptual_hash import perceptual_hash
from kdedge.data.samples import LoadedSample
from kdedge.data.unlabeled import NEAR_BITS, UnlabeledSelection, UnlabeledSource, select_unlabeled
from kdedge_export.scenes import LABELS, render_scene
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.arrays import Pixels


@dataclass(frozen=True, slots=True)
class Value(StoredSample):
    """Sample of one number."""

    value: int

    def read(self) -> LoadedSample:
        return LoadedSample(np.array([self.value]))

    def stamp(self) -> str:
        return str(self.value)


def source(samples: Iterable[StoredSample | SkippedSample], *, is_footage: bool = False) -> UnlabeledSource:
    listed = list(samples)
    return UnlabeledSource("more", iter(listed), len(listed), is_footage)


def select(*sources: UnlabeledSource, train: Split | None = None, held_out: Split | None = None) -> UnlabeledSelection:
    return select_unlabeled(
        sources, lambda values: int(values[0]), train=train or Split(), held_out=[held_out or Split()]
    )


def values(*numbers: int) -> list[StoredSample]:
    return [Value(f"{index}", number) for index, number in enumerate(numbers)]


def split(*numbers: int) -> Split:
    return Split(tuple(values(*numbers)), (0,) * len(numbers))


def scene(label: str, seed: int = 0, side: int = 96) -> Pixels:
    return render_scene(label, np.random.default_rng(seed), side).image


class TestSelection:
    def test_keeps_the_first_of_equal_samples_and_none_of_the_dataset(self) -> None:
        chosen = select(source(values(1, 2, 1, 3, 4)), source(values(2, 5)), train=split(3), held_out=split(4))
        assert [sample.read().values[0] for sample in chosen.samples] == [1, 2, 5]
        assert (chosen.found, chosen.duplicates, chosen.held_out, chosen.near_duplicates) == (7, 3, 1, 0)

    def test_copy_of_a_test_image_in_another_file_type_is_held_out(self, tmp_path: Path) -> None:
        for name in ("test.png", "copy.bmp"):
            Image.fromarray(scene(LABELS[0])).save(tmp_path / name)
        Image.fromarray(scene(LABELS[1])).save(tmp_path / "other.bmp")
        held_out = Split((FileSample.below(tmp_path, tmp_path / "test.png"),), (0,))
        more = [FileSample.below(tmp_path, tmp_path / name) for name in ("copy.bmp", "other.bmp")]
        chosen = select(source(more), held_out=held_out)
        assert [sample.name for sample in chosen.samples] == ["other.bmp"] and chosen.held_out == 1

    def test_hundred_thousand_duplicates_are_counted(self) -> None:
        chosen = select(UnlabeledSource("more", (Value("same", 7) for _ in range(100_000)), 100_000, is_footage=True))
        assert (chosen.found, chosen.duplicates, len(chosen.samples)) == (100_000, 99_999, 1)

    def test_near_duplicates_are_dropped_from_footage_only(self) -> None:
        numbers = (0b0, 0b111, (1 << 20) - 1, 0b1111111)  # the last differs from the first in 7 bits, from 0b111 in 4
        assert len(select(source(values(*numbers))).samples) == 4
        chosen = select(source(values(*numbers), is_footage=True))
        assert [sample.read().values[0] for sample in chosen.samples] == [0b0, (1 << 20) - 1, 0b1111111]
        assert chosen.near_duplicates == 1

    def test_scene_that_returns_after_many_others_is_kept(self) -> None:
        different = [0b1111111 << (7 * step) for step in range(8)]
        pairs = [one | other for one in different for other in different if one < other]
        chosen = select(source(values(0, *pairs[:20], 1), is_footage=True))
        assert chosen.near_duplicates == 0

    def test_unreadable_files_are_reported(self, tmp_path: Path) -> None:
        (tmp_path / "broken.jpg").write_bytes(b"no image")
        broken = FileSample.below(tmp_path, tmp_path / "broken.jpg")
        chosen = select(source([broken, SkippedSample("clip.mp4", "unreadable"), *values(1)]))
        assert {file.name for file in chosen.problems.skipped} == {"broken.jpg", "clip.mp4"}
        assert (chosen.found, chosen.problems.checked) == (1, 3)

    def test_fingerprint_changes_with_content(self) -> None:
        first, same, other = (select(source(values(*numbers))).fingerprint for numbers in ((1, 2), (1, 2), (1, 3)))
        assert first == same != other

    @pytest.mark.parametrize(
        ("numbers", "token"), [((), "no readable"), ((1, 1), "2 are duplicates"), ((2, 2), "2 equal")]
    )
    def test_nothing_left_is_an_error(self, numbers: tuple[int, ...], token: str) -> None:
        with pytest.raises(DataError, match=token):
            select(source(values(*numbers)), train=split(1), held_out=split(2))

    def test_progress_ends_at_its_total(self) -> None:
        calls: list[tuple[int, int]] = []
        select_unlabeled(
            [UnlabeledSource("more", iter(values(*range(200))), 90, is_footage=False)],  # more than expected
            lambda _: None,
            train=split(500),
            held_out=[],
            progress=lambda _, done, total: calls.append((done, total)),
        )
        assert [done == total for done, total in calls] == [*[False] * (len(calls) - 1), True]


class TestPerceptualHash:
    @pytest.mark.parametrize(
        "disturb",
        [
            lambda image: np.asarray(Image.open(_jpeg(image, 30))),
            lambda image: np.clip(image + np.random.default_rng(0).normal(0, 10, image.shape), 0, 255).astype(np.uint8),
            lambda image: (image * 0.8).astype(np.uint8),
        ],
        ids=["jpeg", "noise", "brightness"],
    )
    def test_disturbed_image_stays_near(self, disturb: Callable[[Pixels], Pixels]) -> None:
        for label in LABELS:
            image = scene(label)
            assert (perceptual_hash(image) ^ perceptual_hash(disturb(image))).bit_count() <= NEAR_BITS, label

    def test_different_scenes_are_far(self) -> None:
        hashes = [perceptual_hash(scene(label, seed)) for label in LABELS for seed in range(4)]
        distances = [(one ^ other).bit_count() for index, one in enumerate(hashes) for other in hashes[:index]]
        assert min(distances) > NEAR_BITS

    def test_has_64_bits_of_which_half_are_set(self) -> None:
        assert perceptual_hash(scene(LABELS[0])).bit_count() == 32


def _jpeg(image: Pixels, quality: int) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer
