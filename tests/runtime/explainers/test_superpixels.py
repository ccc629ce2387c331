"""Superpixels and grids of an image."""

import numpy as np
import pytest

from kdedge_runtime.explainers.image_grid import enlarge, grid_edges, grid_means
from kdedge_runtime.explainers.superpixels import superpixels


class TestGrid:
    def test_position_edges_cover_the_side_evenly(self) -> None:
        assert grid_edges(224, 14).tolist() == list(range(0, 225, 16))
        assert grid_edges(10, 4).tolist() == [0, 2, 5, 8, 10]
        assert grid_edges(5, 14).tolist() == [0, 1, 2, 3, 4, 5]

    def test_position_means_average_pixels(self) -> None:
        masks = np.random.default_rng(0).random((3, 10, 6)).astype(np.float32)
        means = grid_means(masks, grid_edges(10, 4), grid_edges(6, 2))
        assert means.shape == (3, 4, 2)
        np.testing.assert_allclose(means[1, 2, 1], masks[1, 5:8, 3:].mean(), rtol=1e-6)

    def test_enlarge_interpolates_linearly_between_position_centers(self) -> None:
        large = enlarge(np.array([[[0.0, 3.0]]], np.float32), 1, 6)
        np.testing.assert_allclose(large[0, 0], [0, 0, 1, 2, 3, 3], atol=1e-6)


class TestSuperpixels:
    def test_superpixels_follow_color_edges(self) -> None:
        picture = np.full((60, 80, 3), 40, np.uint8)
        picture[13:41, 22:61] = (220, 60, 30)
        parts = superpixels(picture, 30)
        inside = np.zeros((60, 80), bool)
        inside[13:41, 22:61] = True
        share = np.bincount(parts.ravel(), inside.ravel()) / np.bincount(parts.ravel())
        assert ((share[parts] > 0.5) == inside).mean() > 0.98

    @pytest.mark.parametrize("shape", [(224, 224), (30, 200), (7, 5)])
    @pytest.mark.parametrize("count", [2, 12, 40])
    def test_superpixel_count_is_bounded_and_labels_are_contiguous(self, shape: tuple[int, int], count: int) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        parts = superpixels(picture, count)
        assert parts.shape == shape
        assert np.unique(parts).tolist() == list(range(parts.max() + 1))
        assert count // 2 <= parts.max() + 1 <= count
