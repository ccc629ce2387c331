"""Checks against the best constant prediction, and of evidence outside a region of interest."""

import numpy as np
import pytest

from kdedge_export.metrics.localization import localize_all
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.validation import Gates
from kdedge_export.validation.baseline_checks import check_constant, check_evidence

CLASSIFY = EXPORT_TASKS["classify"]
TARGETS = np.array([0] * 60 + [1] * 40)


def logits_for(predicted: np.ndarray) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[predicted]


@pytest.mark.parametrize(
    ("predicted", "outcome", "measured"),
    [
        (TARGETS, "passed", 40.0),
        (np.zeros(100, int), "inconclusive", 0.0),
        (1 - TARGETS, "failed", -60.0),
        (np.where(np.arange(100) < 62, 0, 1), "passed", 38.0),
        (np.where(np.arange(100) < 98, 0, 1), "inconclusive", 2.0),
    ],
)
def test_model_must_be_better_than_a_constant(predicted: np.ndarray, outcome: str, measured: float) -> None:
    constant = CLASSIFY.constant_correct(TARGETS, 2)
    assert constant is not None and constant.mean() == 0.6
    check = check_constant("int8", CLASSIFY.correct(logits_for(predicted), TARGETS), constant, Gates(), CLASSIFY)
    assert (check.key, check.outcome) == ("int8_gain_over_constant", outcome)
    assert check.measured == pytest.approx(measured)


def test_coin_that_follows_a_trend_is_not_shown_to_be_better() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random(1500) < 0.541).astype(int)
    predicted = (rng.random(1500) < 0.9).astype(int)
    constant = CLASSIFY.constant_correct(targets, 2)
    assert constant is not None
    check = check_constant("fp32", CLASSIFY.correct(logits_for(predicted), targets), constant, Gates(), CLASSIFY)
    assert check.passed is False


def localization(inside: float, count: int = 60):
    masks = [np.pad(np.ones((8, 8), bool), ((0, 8), (0, 8)))] * count
    maps = np.zeros((count, 16, 16), np.float32)
    maps[:, 4, 4], maps[:, 12, 12] = inside, 1 - inside
    return localize_all({"int8": maps}, masks, {}, {})["int8"]


def test_evidence_is_checked_only_with_a_bound() -> None:
    assert check_evidence("int8", localization(0.9), 60, Gates()) == []
    (passed,) = check_evidence("int8", localization(0.9), 60, Gates(max_evidence_outside=0.2))
    (unclear,) = check_evidence("int8", localization(0.9, count=5), 5, Gates(max_evidence_outside=0.2))
    (failed,) = check_evidence("int8", localization(0.7), 60, Gates(max_evidence_outside=0.2))
    assert [check.outcome for check in (passed, unclear, failed)] == ["passed", "inconclusive", "failed"]
    assert passed.measured == pytest.approx(0.1, abs=1e-6) and passed.interval is not None
    assert passed.interval.low < 0.1 < passed.interval.high < 0.2
    (missing,) = check_evidence("int8", None, 0, Gates(max_evidence_outside=0.2))
    assert missing.outcome == "not measured"
