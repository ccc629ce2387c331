"""Verdict over all checks, and their list as text."""

import math
from dataclasses import replace

import pytest
from validate_toys import compared

from kdedge_export.metrics.confidence import Interval
from kdedge_export.validation import Check, Gates, checklist
from kdedge_export.validation.check import verdict
from kdedge_export.validation.fidelity_checks import check_comparison


def check(measured: float | None, bound: float, passed: bool | None, **changes: object) -> Check:
    outcome = "not measured" if passed is None else "passed" if passed else "failed"
    made = Check("key", "some check", measured, ">=", bound, "correlation", outcome)  # type: ignore[arg-type]
    return replace(made, **changes)  # type: ignore[arg-type]


def test_verdict_needs_a_passed_check_and_no_failure() -> None:
    good, bad, unknown = check(1.0, 0.9, True), check(0.1, 0.9, False), check(None, 0.9, None)
    assert verdict([good]) and verdict([good, unknown])
    assert not verdict([good, bad]) and not verdict([unknown]) and not verdict([])


class TestChecklist:
    def test_lines_are_aligned_with_marks(self) -> None:
        unlabeled = check_comparison("int8", compared(100, labeled=False, lost=range(50)), Gates())
        wanted = {"int8_accuracy_drop", "int8_agreement", "int8_map_pearson_mean", "int8_map_pearson_p5"}
        checks = [
            *check_comparison("fp32", compared(), Gates())[1:3],
            *(check for check in unlabeled if check.key in wanted),
        ]
        assert checklist(checks) == [
            "[✓] fp32 logits error                 0.0e+00                      (<= 0.0001)",
            "[✓] fp32 KL divergence                0.0000 nats                  (<= 0.0001 nats)",
            "[-] int8 top-1 drop                   not measured: the samples have no labels",
            "[✗] int8 top-1 agreement              50.00%       [39.79, 60.12]  (>= 90%)  FAILED",
            "[?] int8 map Pearson, mean            1.000        [0.927, 1.000]  (>= 0.98)  "
            "INCONCLUSIVE with 100 samples; "
            "about 370 needed to confirm",
            "[✓] int8 map Pearson, 5th percentile  1.000        [1.000, 1.000]  (>= 0.9)",
        ]

    @pytest.mark.parametrize(
        ("failed", "shown"),
        [
            (check(0.97996, 0.98, False), "0.97996"),
            (check(0.99999, 1.0, False, unit="share"), "99.999%"),
            (check(1.004, 1.0, False, unit="points", relation="<="), "1.004 points"),
            (check(1.0004e-4, 1e-4, False, unit="error", relation="<="), "1.0004e-04"),
            (check(0.99972, 0.98, True), "0.9997"),
            (check(0.9999999, 0.98, True), "1.000"),
            (check(math.nan, 0.98, False), "not a number"),
            (check(math.inf, 1e-4, False, unit="error", relation="<="), "infinite"),
        ],
    )
    def test_rounding_never_contradicts_the_outcome(self, failed: Check, shown: str) -> None:
        assert f"  {shown}  (" in checklist([failed])[0]

    def test_inconclusive_line_states_its_reason(self) -> None:
        ends = Interval(0.9799, 1.0)
        unshown = check(0.99, 0.98, True, outcome="inconclusive", interval=ends, reason="with 9 samples; …")
        (line,) = checklist([unshown])
        assert line == "[?] some check  0.990  [0.9799, 1.000]  (>= 0.98)  INCONCLUSIVE with 9 samples; …"

    def test_no_checks_give_no_lines(self) -> None:
        assert checklist([]) == []
