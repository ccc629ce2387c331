"""Synthetic camera: live, in real time, reproducible, with ground truth."""

import itertools
import time

import numpy as np
import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sources.source import Source
from kdedge_runtime.sources.synthetic import LABELS, SyntheticSource


def small(kind: str | None = None, *, frames: int | None = None, seed: int = 0) -> SyntheticSource:
    return SyntheticSource(kind, height=60, width=80, frames=frames, seed=seed)


def test_frames_have_index_time_and_requested_size() -> None:
    before = time.monotonic()
    with small(frames=4) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert all(frame.sample.shape == (60, 80, 3) and frame.sample.dtype == np.uint8 for frame in frames)
    stamps = [before, *(frame.captured_at for frame in frames), time.monotonic()]
    assert stamps == sorted(stamps)
    assert frames[2].name == "synthetic: 2"


def test_source_is_live_without_drops() -> None:
    source: Source = SyntheticSource("fish", frames=7)
    assert (source.live, source.fps, source.expected) == (True, 30.0, 7)
    assert (source.dropped, source.unreadable, source.reconnects) == (0, 0, 0)
    assert source.name == "synthetic:fish"
    assert SyntheticSource().expected is None


def test_frame_rate_is_at_most_thirty() -> None:
    before = time.monotonic()
    with small(frames=16) as source:
        early = [frame.index for frame in source if frame.captured_at < before + frame.index / 30]
    assert early == []


def test_frames_depend_only_on_the_seed() -> None:
    one, two, other = small(), small(), small(seed=1)
    for index in (0, 1, 95):
        np.testing.assert_array_equal(one.scene_at(index).image, two.scene_at(index).image)
        assert (one.scene_at(index).image != other.scene_at(index).image).any()


def test_frames_do_not_share_their_pixels() -> None:
    with small(frames=2) as source:
        first, second = list(source)
    assert not np.shares_memory(first.sample, second.sample)


def test_each_frame_has_ground_truth() -> None:
    with small(frames=3) as source:
        for frame in source:
            scene = source.scene_at(frame.index)
            np.testing.assert_array_equal(frame.sample, scene.image)
            assert frame.truth is not None
            assert frame.truth.label == scene.label
            left, top, right, bottom = frame.truth.box
            assert scene.mask[top:bottom, left:right].sum() == scene.mask.sum() > 0
            for tighter in ((left + 1, top, right, bottom), (left, top, right - 1, bottom)):
                assert scene.mask[tighter[1] : tighter[3], tighter[0] : tighter[2]].sum() < scene.mask.sum()


def test_classes_alternate_every_three_seconds() -> None:
    source = small()
    labels = [source.scene_at(index).label for index in range(0, 90 * len(LABELS), 45)]
    assert [label for label, _ in itertools.groupby(labels)] == list(LABELS)
    assert source.scene_at(90 * len(LABELS)).label == LABELS[0]


def test_single_class_can_be_selected() -> None:
    source = small("key")
    assert {source.scene_at(index).label for index in (0, 90, 500)} == {"key"}


@pytest.mark.parametrize("label", LABELS)
def test_object_moves_smoothly_inside_the_image(label: str) -> None:
    source = SyntheticSource(label, height=90, width=160)
    masks = [source.scene_at(index).mask for index in range(0, 90, 6)]
    border = np.ones((90, 160), dtype=bool)
    border[1:-1, 1:-1] = False
    assert not any((mask & border).any() for mask in masks)
    centers = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert np.ptp(centers[:, 1]) > 8
    assert steps.max() < 20  # in 0.2 s, without jumps


def test_unknown_class_error_lists_the_classes() -> None:
    with pytest.raises(UsageError, match=r"no object 'unicorn'.*bottle, fish"):
        SyntheticSource("unicorn")
