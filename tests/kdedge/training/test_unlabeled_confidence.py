"""Confidence of a teacher on unlabeled samples."""

from dataclasses import replace

import pytest

from kdedge.training.teachers.confidence import TeacherConfidence

MEASURED = TeacherConfidence(samples=30, mean=0.6, share=0.7, on_val=0.9, counts=(20, 8, 2))


@pytest.mark.parametrize(("mean", "on_val", "warns"), [(0.49, 0.85, True), (0.89, 0.85, False), (0.32, 0.64, True)])
def test_warns_of_a_much_lower_confidence_than_on_validation(mean: float, on_val: float, warns: bool) -> None:
    warning = replace(MEASURED, mean=mean, on_val=on_val).warning
    assert (warning is not None) == warns
    assert warning is None or (f"{mean:.2f}" in warning and f"{on_val:.2f}" in warning)


def test_summary_has_confidence_share_and_balance() -> None:
    for token in ("0.60 on 30", "0.90", "70%", "largest class 20", "smallest 2"):
        assert token in MEASURED.summary
