"""Random maps of tests, and a check of scores per image."""

from collections.abc import Callable

import numpy as np
import pytest

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def random_maps(n: int, seed: int, height: int = 7, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, height, width)).astype(np.float32)


def scaled_maps(seed: int) -> np.ndarray:
    """Five maps of different scales and offsets: one of small numbers, one constant, one large, one negative."""
    maps = random_maps(5, seed, 3, 4) * np.float32([1, 1e-3, 0, 500, 2])[:, None, None]
    return maps + np.float32([0, 1e-3, 4, 100, -9])[:, None, None]


def check_each_image_alone(score: Score, constant_ones: bool) -> None:
    a, b = scaled_maps(20), scaled_maps(21)[::-1].copy()
    if constant_ones:
        a[1], b[1] = 3, 7
    b[0, 0, 0] = np.nan
    each = np.concatenate([score(a[[index]], b[[index]]) for index in range(len(a))])
    assert score(a, b) == pytest.approx(each, rel=1e-9, nan_ok=True)
    assert score(a, b).shape == (len(a),)
