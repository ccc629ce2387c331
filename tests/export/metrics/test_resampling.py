"""Maps resampled to a common resolution."""

import numpy as np
import pytest
from toy_maps import random_maps

from kdedge_export.metrics.resampling import area_mean, to_common_size


class TestResampling:
    def test_whole_blocks_become_their_means(self) -> None:
        maps = random_maps(3, 10, 8, 6)
        expected = maps.reshape(3, 4, 2, 3, 2).mean(axis=(2, 4))
        assert area_mean(maps, 4, 3) == pytest.approx(expected, abs=1e-6)

    def test_straddling_positions_are_split(self) -> None:
        # Three positions to two: half of the middle one goes to each.
        row = np.array([[[0.0, 6.0, 3.0]]], dtype=np.float32)
        assert area_mean(row, 1, 2) == pytest.approx(np.array([[[2.0, 4.0]]]))

    def test_mean_of_a_map_is_preserved(self) -> None:
        maps = random_maps(5, 11, 14, 14)
        assert area_mean(maps, 9, 5).mean(axis=(1, 2)) == pytest.approx(maps.mean(axis=(1, 2)), abs=1e-6)

    def test_maps_of_equal_size_are_unchanged(self) -> None:
        for height, width in ((4, 4), (3, 5)):
            a, b = random_maps(1, 12, height, width), random_maps(2, 13, height, width)
            assert all(x is y for x, y in zip(to_common_size(a, b), (a, b), strict=True))

    def test_heights_and_widths_are_matched_separately(self) -> None:
        a, b = to_common_size(random_maps(1, 12, 14, 7), random_maps(1, 13, 10, 8))
        assert a.shape == b.shape == (1, 10, 7) and a.dtype == b.dtype == np.float32
        a, b = to_common_size(random_maps(1, 12, 9, 20), random_maps(1, 13, 11, 8))
        assert a.shape == b.shape == (1, 9, 8)

    def test_smaller_height_and_width_are_used(self) -> None:
        a, b = to_common_size(random_maps(1, 12, 14, 7), random_maps(1, 13, 8, 8))
        assert a.shape == b.shape == (1, 8, 7)
