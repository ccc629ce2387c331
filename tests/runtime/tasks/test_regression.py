"""Regression at inference: values in the unit of the target."""

import numpy as np
import pytest

from kdedge_runtime.tasks import TASKS

TASK = TASKS["regression"]


def test_values_are_the_outputs_in_their_order() -> None:
    logits = np.array([[3.0, -1.0]], np.float32)
    assert TASK.scores(logits, 2.5).tolist() == logits.tolist()
    assert TASK.ranking(logits[0], ("wage", "hours")) == (("wage", 3.0), ("hours", -1.0))
    assert TASK.share(0.5) is None and TASK.has_values and not TASK.has_classes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0123456, "0.01235"),
        (12.3456, "12.35"),
        (419_321.7, "419,322"),
        (-1234.5, "-1,234"),
        (3e12, "3e+12"),
    ],
)
def test_values_below_a_billion_have_no_exponent(value: float, text: str) -> None:
    assert TASK.format_score(value) == text
