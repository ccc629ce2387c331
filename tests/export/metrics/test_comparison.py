"""Comparison of two models' predictions and maps."""

import math

import numpy as np
import pytest

from kdedge_export.metrics.comparison import compare, pair_pearson
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_export.tasks.classification import CLASSIFICATION

N = 100
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(N, 5)).astype(np.float32)
MAPS = RNG.normal(size=(N, 7, 7)).astype(np.float32)
TOP = LOGITS.argmax(axis=1)
REFERENCE = Predictions(LOGITS, MAPS, TOP)


def test_identical_models_agree_fully() -> None:
    same = compare(REFERENCE, REFERENCE, TOP, CLASSIFICATION)
    assert (same.n, same.accuracy_reference, same.accuracy_candidate, same.accuracy_drop) == (N, 1.0, 1.0, 0.0)
    assert (same.agreement, same.divergence) == (1.0, 0.0)
    assert same.maps is not None
    assert (same.maps.pearson_mean, same.maps.pearson_p5, same.maps.pearson_p1) == pytest.approx((1, 1, 1))
    assert (same.maps.top20_iou_mean, same.maps.max_relative_error) == (1.0, 0.0)
    assert abs(same.maps.shuffled_pearson) < 0.1


def test_maps_with_a_center_bias_have_a_high_floor() -> None:
    centered = MAPS * 0.3 + np.outer(np.hanning(7), np.hanning(7)).astype(np.float32)
    predictions = Predictions(LOGITS, centered, TOP)
    maps = compare(predictions, predictions, None, CLASSIFICATION).maps
    assert maps is not None
    assert maps.shuffled_pearson > 0.4


def test_percentiles_are_over_images() -> None:
    noise = RNG.normal(size=MAPS.shape).astype(np.float32) * np.linspace(0, 1, N, dtype=np.float32)[:, None, None]
    candidate = Predictions(LOGITS, MAPS + noise, TOP)
    scores = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(MAPS, MAPS + noise, strict=True)]
    maps = compare(REFERENCE, candidate, None, CLASSIFICATION).maps
    assert maps is not None
    measured = maps.pearson_mean, maps.pearson_p5, maps.pearson_p1
    assert measured == pytest.approx((np.mean(scores), np.percentile(scores, 5), np.percentile(scores, 1)))


def test_drop_of_exactly_one_point_is_exact() -> None:
    worse = LOGITS.copy()
    worse[0] = -worse[0]
    targets = TOP.copy()
    targets[1:11] = (targets[1:11] + 1) % 5  # 90 correct vs. 89
    comparison = compare(REFERENCE, Predictions(worse, MAPS, TOP), targets, CLASSIFICATION)
    assert comparison.accuracy_drop == 0.01


def test_accuracy_is_none_without_labels() -> None:
    comparison = compare(REFERENCE, REFERENCE, None, CLASSIFICATION)
    assert comparison.accuracy_reference is comparison.accuracy_candidate is comparison.accuracy_drop is None


def test_map_comparison_is_none_without_maps() -> None:
    assert compare(REFERENCE, Predictions(LOGITS, None, TOP), None, CLASSIFICATION).maps is None


def test_lost_maps_count_as_zero() -> None:
    lossy = MAPS.copy()
    lossy[:20] = 0
    lossy[20:30] = np.nan
    maps = compare(REFERENCE, Predictions(LOGITS, lossy, TOP), None, CLASSIFICATION).maps
    assert maps is not None
    assert maps.pearson_mean == pytest.approx(0.7)
    assert maps.top20_iou_mean == pytest.approx(0.7)
    assert (maps.pearson_p5, maps.constant_reference, maps.constant_candidate) == (0.0, 0, 20)
    assert math.isnan(maps.max_relative_error)


def test_pairs_of_constant_maps_are_counted_and_left_out() -> None:
    flat = MAPS.copy()
    flat[:10] = 3.0
    predictions = Predictions(LOGITS, flat, TOP)
    maps = compare(predictions, predictions, None, CLASSIFICATION).maps
    assert maps is not None
    assert (maps.constant_reference, maps.constant_candidate) == (10, 10)
    assert maps.pearson_mean == pytest.approx(1.0)
    all_flat = Predictions(LOGITS, np.zeros_like(MAPS), TOP)
    nothing_left = compare(all_flat, all_flat, None, CLASSIFICATION).maps
    assert nothing_left is not None
    assert math.isnan(nothing_left.pearson_mean)


def test_map_for_another_class_counts_as_lost() -> None:
    explained = TOP.copy()
    explained[0] = (explained[0] + 1) % 5
    candidate = Predictions(LOGITS, MAPS, explained)
    maps = compare(REFERENCE, candidate, None, CLASSIFICATION).maps
    assert maps is not None
    assert (maps.wrong_class, maps.max_relative_error) == (1, math.inf)
    scores = pair_pearson(REFERENCE, candidate)
    assert scores is not None
    assert scores[0] == 0.0


def test_finer_teacher_map_is_compared_at_the_students_resolution() -> None:
    finer = MAPS.repeat(2, axis=1).repeat(2, axis=2)
    maps = compare(Predictions(LOGITS, finer, TOP), REFERENCE, None, CLASSIFICATION).maps
    assert maps is not None
    assert maps.pearson_mean == pytest.approx(1.0)


def test_single_image_has_no_shuffled_floor() -> None:
    one = Predictions(LOGITS[:1], MAPS[:1], TOP[:1])
    maps = compare(one, one, None, CLASSIFICATION).maps
    assert maps is not None
    assert math.isnan(maps.shuffled_pearson)
