"""Classification at inference, compared with the softmax in double precision."""

import numpy as np

from kdedge_runtime.tasks import TASKS

LOGITS = np.random.default_rng(0).normal(0, 20, (6, 5)).astype(np.float32)


def test_scores_are_the_softmax_at_the_temperature() -> None:
    scores = TASKS["classify"].scores(LOGITS, 2.5)
    exact = np.exp(LOGITS.astype(np.float64) / 2.5)
    np.testing.assert_allclose(scores, exact / exact.sum(axis=1, keepdims=True), rtol=1e-5)
    assert TASKS["classify"].scores(1e4 * LOGITS, 1.0).max() == 1.0


def test_ranking_has_the_three_best_classes_and_keeps_the_order_of_ties() -> None:
    scores = np.array([0.1, 0.3, 0.3, 0.05, 0.25], np.float32)
    ranking = TASKS["classify"].ranking(scores, "abcde")
    assert [label for label, _ in ranking] == ["b", "c", "e"]
    assert [score for _, score in TASKS["classify"].ranking(scores[:2], "ab")] == [scores[1], scores[0]]


def test_score_is_a_share_in_percent() -> None:
    task = TASKS["classify"]
    assert (task.format_score(0.934), task.format_score(1.0)) == ("93%", "100%")
    assert (task.share(0.4), task.share(1.0000001)) == (0.4, 1.0)
