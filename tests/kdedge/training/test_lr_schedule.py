"""Learning rate schedule: linear warmup, cosine decay."""

import math
from itertools import pairwise

import pytest

from kdedge.training.schedule import learning_rate


@pytest.mark.parametrize(("total", "warmup_fraction"), [(100, 0.1), (37, 0.3), (1000, 0.05)])
def test_schedule_shape(total: int, warmup_fraction: float) -> None:
    rates = [learning_rate(step, total, 0.2, warmup_fraction) for step in range(total)]
    top = rates.index(max(rates))
    assert rates[top] == 0.2
    assert top == round(total * warmup_fraction) - 1
    steps_up = [after - before for before, after in pairwise(rates[: top + 1])]
    assert steps_up == pytest.approx([0.2 / (top + 1)] * top), "a line"
    assert rates[0] == pytest.approx(0.2 / (top + 1)), "starts above zero"
    falling = rates[top + 1 :]
    assert falling == sorted(falling, reverse=True)
    assert 0 < rates[-1] < 0.2 * 10 / total**1.5, "ends near zero"


def test_half_of_the_peak_halfway_through_the_decay() -> None:
    assert learning_rate(60, 110, 1.0, 10 / 110) == pytest.approx(0.5)
    assert learning_rate(35, 110, 1.0, 10 / 110) == pytest.approx(0.5 + math.sqrt(0.5) / 2)
    assert learning_rate(85, 110, 1.0, 10 / 110) == pytest.approx(0.5 - math.sqrt(0.5) / 2)


def test_schedule_is_proportional_to_the_peak() -> None:
    for step in range(30):
        assert learning_rate(step, 30, 0.3, 0.1) == pytest.approx(3 * learning_rate(step, 30, 0.1, 0.1))


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.1, 1.0])
def test_shortest_runs_have_positive_rates(total: int, warmup_fraction: float) -> None:
    rates = [learning_rate(step, total, 0.1, warmup_fraction) for step in range(total)]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(0.1)
