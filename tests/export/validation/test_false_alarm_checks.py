"""A file passes if the upper end of its false alarms per hour is within the bound."""

from dataclasses import replace

import pytest

from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.false_alarms import FalseAlarms, poisson_interval
from kdedge_export.validation.false_alarm_checks import check_false_alarms
from kdedge_export.validation.gates import Gates
from kdedge_export.validation.text_report import checklist


@pytest.mark.parametrize(
    ("alarms", "hours", "outcome"),
    [(0, 4.0, "passed"), (0, 3.0, "inconclusive"), (3, 4.0, "inconclusive"), (5, 4.0, "failed")],
)
def test_rate_is_checked_with_its_interval(alarms: int, hours: float, outcome: str) -> None:
    """With no alarm the upper end is 3.69 alarms in the recorded time (Garwood 1936)."""
    low, high = poisson_interval(alarms)
    found = FalseAlarms("int8", alarms, hours, alarms / hours, Interval(low / hours, high / hours))
    (check,) = check_false_alarms([found], replace(Gates(), false_alarms_per_hour=1.0))
    assert (check.key, check.outcome) == ("int8_false_alarms", outcome)
    assert check.measured == alarms / hours and check.interval == found.interval
    assert (check.reason is None) == (outcome == "passed")
    assert check_false_alarms([found], Gates()) == []
    assert f"{alarms / hours:.2f} /h" in checklist([check])[0]
