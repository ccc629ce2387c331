"""Gates of predictions, labels, input and budgets: each passes, fails, is inconclusive or is not measured."""

import math
from dataclasses import replace

import pytest
from validate_toys import compared, int8_gates

from kdedge_export.metrics.comparison import Comparison
from kdedge_export.validation import Check, Footprint, Gates, checklist
from kdedge_export.validation.check import verdict
from kdedge_export.validation.fidelity_checks import check_comparison
from kdedge_export.validation.gates import (
    NO_STUDENT,
    check_budgets,
    check_input,
    check_labels,
)
from kdedge_runtime.devices import Budgets
from kdedge_runtime.modalities.image import ImageInput

GOOD = compared(1000, correlations=[0.999] * 40)
"""Comparison with all predictions preserved and nearly all maps."""


def outcomes(role: str, comparison: Comparison, gates: Gates | None = None) -> dict[str, bool | None]:
    checks = check_comparison(role, comparison, gates or Gates())  # type: ignore[arg-type]
    return {check.key: check.passed for check in checks}


def test_good_export_passes_every_check() -> None:
    fp32, int8 = outcomes("fp32", compared()), outcomes("int8", GOOD)
    assert set(fp32) == {"fp32_agreement", "fp32_logits_error", "fp32_divergence", "fp32_map_error"}
    of_predictions = {"int8_accuracy_drop", "int8_divergence", "int8_logits_distance"}
    assert set(int8) == of_predictions | {"int8_map_pearson_mean", "int8_map_pearson_p5", "int8_map_scale_error"}
    assert all(fp32.values()) and all(int8.values())


@pytest.mark.parametrize(
    ("role", "broken", "key"),
    [
        ("fp32", replace(compared(), agreement=0.999), "fp32_agreement"),
        ("fp32", replace(compared(), logits_error=2e-4), "fp32_logits_error"),
        ("fp32", replace(compared(), divergence=2e-4), "fp32_divergence"),
        ("fp32", compared(correlations=[0.99999]), "fp32_map_error"),
        ("int8", compared(lost=range(11)), "int8_accuracy_drop"),
        ("int8", compared(labeled=False, lost=range(101)), "int8_agreement"),
        ("int8", replace(compared(), divergence_capped=0.2), "int8_divergence"),
        ("int8", replace(compared(), logits_distance=0.2), "int8_logits_distance"),
        ("int8", replace(compared(), maps=replace(compared().maps, scale_error=0.2)), "int8_map_scale_error"),
        ("int8", compared(correlations=[0.97] * 700), "int8_map_pearson_mean"),
        ("int8", compared(correlations=[0.89] * 51), "int8_map_pearson_p5"),
    ],
)
def test_each_gate_fails_alone(role: str, broken: Comparison, key: str) -> None:
    checks = check_comparison(role, broken, Gates())  # type: ignore[arg-type]
    assert [check.key for check in checks if check.outcome == "failed"] == [key]


def test_bounds_are_configurable() -> None:
    lossy = compared(lost=range(15))
    assert outcomes("int8", lossy)["int8_accuracy_drop"] is False
    assert outcomes("int8", lossy, int8_gates(accuracy_drop_points=3.0))["int8_accuracy_drop"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_values_never_pass(value: float) -> None:
    maps = replace(GOOD.maps, max_relative_error=value, pearson_mean=-value)  # type: ignore[type-var]
    broken = replace(GOOD, agreement=-value, logits_error=value, divergence=value, maps=maps)
    assert set(outcomes("fp32", broken).values()) == {False}
    assert outcomes("int8", broken)["int8_map_pearson_mean"] is False


def test_agreement_replaces_accuracy_without_labels() -> None:
    unlabeled = compared(labeled=False, lost=range(500))
    result = outcomes("int8", unlabeled)
    assert result["int8_accuracy_drop"] is None
    assert result["int8_agreement"] is False


def test_maps_are_not_measured_if_neither_model_has_one() -> None:
    without = compared(correlations=None)
    assert outcomes("fp32", without)["fp32_map_error"] is None
    assert outcomes("int8", without)["int8_map_pearson_p5"] is None


@pytest.mark.parametrize("role", ["fp32", "int8"])
def test_file_without_a_map_fails_if_its_reference_has_one(role: str) -> None:
    lost = replace(compared(correlations=None), lost_map=True)
    checks = [check for check in check_comparison(role, lost, Gates()) if "map" in check.key]  # type: ignore[arg-type]
    assert checks and {check.outcome for check in checks} == {"failed"}
    assert all("its reference has one" in (check.reason or "") for check in checks)


class TestConstantMaps:
    """Pairs of constant maps are excluded from the map correlations."""

    def test_only_images_with_varying_maps_are_counted(self) -> None:
        mostly = check_comparison("int8", compared(1000, constant=997), Gates())
        of_maps = {check.key: check for check in mostly if "pearson" in check.key}
        assert {check.outcome for check in of_maps.values()} == {"inconclusive"}
        p5 = of_maps["int8_map_pearson_p5"]
        # 72 such images are needed, and 3 of 1,000 qualify.
        assert p5.samples_needed == 24_000
        assert p5.reason == "with 3 samples of 1,000, since the other maps are constant; about 24,000 needed to confirm"

    def test_enough_varying_maps_pass(self) -> None:
        assert all(outcomes("int8", compared(1000, constant=500)).values())

    def test_all_constant_maps_have_their_own_reason(self) -> None:
        checks = check_comparison("int8", compared(400, constant=400), Gates())
        of_maps = [check for check in checks if "pearson" in check.key]
        assert [check.outcome for check in of_maps] == ["failed", "failed"]
        assert {check.reason for check in of_maps} == {"every map is constant"}


def test_teacher_and_student_have_no_gates() -> None:
    assert outcomes("student", GOOD) == {}


@pytest.mark.parametrize("labels", [("a", "c", "b"), ("a", "b"), ("a", "b", "c", "d"), ()])
def test_labels_must_match_in_order(labels: tuple[str, ...]) -> None:
    assert check_labels("int8", ("a", "b", "c"), labels).passed is False
    assert check_labels("int8", ("a", "b", "c"), ("a", "b", "c")).passed is True


def test_reason_names_the_difference() -> None:
    swapped = check_labels("fp32", ("a", "b", "c"), ("a", "c", "b"))
    assert swapped.reason == "class 1 is 'c', trained as 'b'"
    assert checklist([swapped])[0].endswith("FAILED: class 1 is 'c', trained as 'b'")
    trained = ImageInput(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    odd = check_input("fp32", trained, replace(trained, resize="squash", crop_fraction=0.9))
    assert odd.reason == "resize is 'squash', trained with 'crop'; crop_fraction is 0.9, trained with 1.0"
    assert check_input("fp32", trained, trained).reason is None


class TestTheInterval:
    def drop(self, n: int, lost: int, gained: int = 0) -> Check:
        comparison = compared(n, lost=range(lost), gained=range(n - gained, n))
        return check_comparison("int8", comparison, Gates())[0]

    def test_check_passes_if_the_unfavorable_end_satisfies_the_bound(self) -> None:
        assert self.drop(370, 0).outcome == "passed"
        assert self.drop(360, 0).outcome == "inconclusive"
        assert self.drop(1000, 2).outcome == "passed"
        assert self.drop(500, 2).outcome == "inconclusive"

    def test_estimate_beyond_the_bound_fails_at_any_interval_width(self) -> None:
        failed = self.drop(20, 1)
        assert failed.outcome == "failed" and failed.reason is None
        assert failed.interval is not None and failed.interval.low < 1.0

    def test_gained_predictions_offset_lost_ones(self) -> None:
        assert self.drop(1000, 6).outcome == "inconclusive"
        assert self.drop(1000, 6, gained=6).outcome == "passed"

    def test_inconclusive_check_does_not_pass(self) -> None:
        unshown = self.drop(500, 2)
        assert unshown.passed is False
        assert not verdict([unshown])

    @pytest.mark.parametrize("n", [1, 2, 30, 100])
    def test_samples_needed_if_all_images_agree(self, n: int) -> None:
        unshown = self.drop(n, 0)
        assert (unshown.outcome, unshown.samples_needed) == ("inconclusive", 370)
        assert unshown.reason == f"with {n} sample{'' if n == 1 else 's'}; about 370 needed to confirm"

    def test_5th_percentile_has_no_interval_with_too_few_images(self) -> None:
        def percentile(n: int) -> Check:
            return next(check for check in check_comparison("int8", compared(n), Gates()) if check.key.endswith("p5"))

        p5 = percentile(71)
        assert (p5.outcome, p5.interval, p5.samples_needed) == ("inconclusive", None, 72)
        assert p5.reason == "with 71 samples; about 72 needed to confirm"
        assert percentile(72).passed

    def test_estimate_on_the_bound_is_never_conclusive(self) -> None:
        on_it = self.drop(100, 1)
        assert (on_it.outcome, on_it.samples_needed) == ("inconclusive", None)
        assert on_it.reason is not None and "no number of samples" in on_it.reason

    def test_correlations_are_checked_at_their_lower_end(self) -> None:
        unsure = compared(1000, correlations=[0.0] * 15)
        assert outcomes("int8", unsure)["int8_map_pearson_mean"] is False
        assert unsure.maps is not None and unsure.maps.pearson_mean > 0.98

    def test_export_is_checked_per_image_without_an_interval(self) -> None:
        exact = check_comparison("fp32", compared(), Gates())
        assert all(check.interval is None and check.passed for check in exact)


def test_input_that_differs_from_training_fails() -> None:
    trained = ImageInput(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert check_input("fp32", trained, trained).passed
    changes = {"resize": "squash", "mean": (0.4, 0.5, 0.5), "crop_fraction": 0.9, "interpolation": "bicubic"}
    for name, value in changes.items():
        stated = replace(trained, **{name: value})  # type: ignore[arg-type]
        assert check_input("fp32", trained, stated).outcome == "failed"


def test_labels_and_input_report_the_matching_fraction() -> None:
    labels = check_labels("int8", ("a", "b", "c", "d"), ("a", "c", "b", "d"))
    assert (labels.key, labels.measured, labels.relation, labels.bound, labels.unit) == (
        "int8_labels", 0.5, ">=", 1.0, "share",
    )  # fmt: skip
    assert labels.name.startswith("int8 labels")
    assert check_labels("int8", ("a",), ("a",)).measured == 1
    trained = ImageInput(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    stated = check_input("fp32", trained, replace(trained, resize="squash"))
    fields = len(vars(trained))
    assert (stated.key, stated.measured, stated.relation, stated.bound, stated.unit) == (
        "fp32_input", (fields - 1) / fields, ">=", 1.0, "share",
    )  # fmt: skip
    assert stated.name.startswith("fp32 input")


def test_labels_and_input_do_not_apply_without_a_reference() -> None:
    stated = ImageInput(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    for found, key in ((check_labels("int8", None, ("a",)), "labels"), (check_input("int8", None, stated), "input")):
        assert found == Check(f"int8_{key}", found.name, None, ">=", 1.0, "share", "not applicable", reason=NO_STUDENT)
        assert found.name.startswith(f"int8 {key}")


def test_empty_labels_score_zero() -> None:
    assert check_labels("fp32", (), ()).measured == 0


class TestBudgets:
    FOOTPRINT = Footprint(parameters=1_000_000, file_mb=4.0, latency_ms=10.0, threads=1, peak_memory_mb=100.0)

    def test_only_limited_quantities_are_checked(self) -> None:
        assert check_budgets("int8", self.FOOTPRINT, Budgets()) == ()
        checks = check_budgets("int8", self.FOOTPRINT, Budgets(file_mb=4.0, parameters=999_999))
        assert {check.key: check.passed for check in checks} == {"int8_file_mb": True, "int8_parameters": False}

    def test_each_budget_gives_a_check(self) -> None:
        budgets = Budgets(file_mb=5.0, parameters=2_000_000, latency_ms=9.0, peak_memory_mb=128.0)
        checks = check_budgets("fp32", self.FOOTPRINT, budgets)
        assert [(check.key, check.measured, check.relation, check.bound, check.unit) for check in checks] == [
            ("fp32_file_mb", 4.0, "<=", 5.0, "MB"),
            ("fp32_parameters", 1_000_000, "<=", 2_000_000, "count"),
            ("fp32_peak_memory_mb", 100.0, "<=", 128.0, "MB"),
            ("fp32_latency_ms", 10.0, "<=", 9.0, "ms"),
        ]
        assert checks[1].name == "fp32 parameters"

    def test_local_measurements_are_marked(self) -> None:
        checks = check_budgets("int8", self.FOOTPRINT, Budgets(latency_ms=9.0, peak_memory_mb=128))
        assert checklist(checks) == [
            "[✓] int8 peak memory, measured here  100.00 MB  (<= 128 MB)",
            "[✗] int8 latency, measured here      10.00 ms   (<= 9 ms)  FAILED",
        ]

    def test_unknown_memory_is_not_measured(self) -> None:
        unknown = replace(self.FOOTPRINT, peak_memory_mb=None)
        (check,) = check_budgets("int8", unknown, Budgets(peak_memory_mb=128))
        assert check.outcome == "not measured"
