"""Gates say passed, failed or not measured, and never more than was measured."""

import math
from dataclasses import replace

import pytest

from kdedge_export.validate import Check, Comparison, Footprint, Gates, Interval, MapComparison, checklist
from kdedge_export.validate.gates import (
    check_budgets,
    check_comparison,
    check_input,
    check_labels,
    check_sanity,
    verdict,
)
from kdedge_export.validate.sanity import Sanity
from kdedge_runtime.devices import Budgets
from kdedge_runtime.metadata import ImageInput

SURE = Interval(0.995, 0.995)
MAPS = MapComparison(
    pearson_mean=0.995,
    pearson_p5=0.96,
    pearson_p1=0.93,
    top20_iou_mean=0.9,
    error_relative=3e-6,
    floor_pearson=0.3,
    constant_reference=0,
    constant_candidate=0,
    wrong_class=0,
    intervals={"pearson_mean": SURE, "pearson_p5": SURE},
)
GOOD = Comparison(
    n=100,
    top1_reference=0.9,
    top1_candidate=0.9,
    top1_drop_points=0.0,
    agreement=1.0,
    kl=0.0,
    maps=MAPS,
    intervals={"top1_drop_points": Interval(0.0, 0.0), "agreement": Interval(1.0, 1.0)},
)


def outcomes(role: str, comparison: Comparison, gates: Gates | None = None) -> dict[str, bool | None]:
    checks = check_comparison(role, comparison, gates or Gates())  # type: ignore[arg-type]
    return {check.key: check.passed for check in checks}


def test_a_good_export_passes_everything() -> None:
    assert outcomes("fp32", GOOD) == {"fp32_agreement": True, "fp32_map_error": True}
    expected = {"int8_top1_drop_points": True, "int8_map_pearson_mean": True, "int8_map_pearson_p5": True}
    assert outcomes("int8", GOOD) == expected


@pytest.mark.parametrize(
    ("role", "broken", "key"),
    [
        ("fp32", replace(GOOD, agreement=0.99), "fp32_agreement"),
        ("fp32", replace(GOOD, maps=replace(MAPS, error_relative=2e-4)), "fp32_map_error"),
        ("int8", replace(GOOD, top1_drop_points=1.01), "int8_top1_drop_points"),
        ("int8", replace(GOOD, maps=replace(MAPS, pearson_mean=0.979)), "int8_map_pearson_mean"),
        ("int8", replace(GOOD, maps=replace(MAPS, pearson_p5=0.899)), "int8_map_pearson_p5"),
    ],
)
def test_each_gate_fails_alone(role: str, broken: Comparison, key: str) -> None:
    assert [name for name, passed in outcomes(role, broken).items() if passed is False] == [key]


def test_a_bound_that_is_just_met_is_kept() -> None:
    on_the_line = replace(GOOD, top1_drop_points=1.0, maps=replace(MAPS, pearson_mean=0.98, pearson_p5=0.9))
    assert all(outcomes("int8", on_the_line).values())


def test_bounds_can_be_moved() -> None:
    assert outcomes("int8", replace(GOOD, top1_drop_points=1.5), Gates(int8_top1_drop_points=2.0))[
        "int8_top1_drop_points"
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_never_passes(value: float) -> None:
    broken = replace(GOOD, agreement=-value, maps=replace(MAPS, error_relative=value, pearson_mean=-value))
    assert set(outcomes("fp32", broken).values()) == {False}
    assert outcomes("int8", broken)["int8_map_pearson_mean"] is False


def test_without_labels_accuracy_is_not_measured_and_agreement_stands_in() -> None:
    unlabelled = replace(GOOD, top1_drop_points=None, agreement=0.5)
    result = outcomes("int8", unlabelled)
    assert result["int8_top1_drop_points"] is None
    assert result["int8_agreement"] is False


def test_without_a_map_the_maps_are_not_measured() -> None:
    assert outcomes("fp32", replace(GOOD, maps=None))["fp32_map_error"] is None
    assert outcomes("int8", replace(GOOD, maps=None))["int8_map_pearson_p5"] is None


def test_teacher_and_student_face_no_gate() -> None:
    assert outcomes("student", GOOD) == {}


@pytest.mark.parametrize("labels", [("a", "c", "b"), ("a", "b"), ("a", "b", "c", "d"), ()])
def test_labels_must_all_be_in_their_places(labels: tuple[str, ...]) -> None:
    assert check_labels("int8", ("a", "b", "c"), labels).passed is False
    assert check_labels("int8", ("a", "b", "c"), ("a", "b", "c")).passed is True


def test_what_differs_is_named() -> None:
    swapped = check_labels("fp32", ("a", "b", "c"), ("a", "c", "b"))
    assert swapped.reason == "class 1 is 'c', trained as 'b'"
    assert checklist([swapped])[0].endswith("FAILED: class 1 is 'c', trained as 'b'")
    trained = ImageInput(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    odd = check_input("fp32", trained, replace(trained, resize="squash", crop_fraction=0.9))
    assert odd.reason == "resize is 'squash', trained with 'crop'; crop_fraction is 0.9, trained with 1.0"
    assert check_input("fp32", trained, trained).reason is None


class TestTheInterval:
    def drop(self, low: float, measured: float, high: float) -> Check:
        comparison = replace(GOOD, top1_drop_points=measured, intervals={"top1_drop_points": Interval(low, high)})
        return check_comparison("int8", comparison, Gates())[0]

    def test_a_bound_is_kept_where_the_unfavourable_end_keeps_it(self) -> None:
        assert self.drop(-1.0, 0.2, 1.0).outcome == "passed"
        assert self.drop(-1.0, 0.2, 1.01).outcome == "not shown"
        assert self.drop(1.01, 1.5, 2.0).outcome == "failed"

    def test_what_breaks_the_bound_itself_fails_however_wide_the_interval(self) -> None:
        assert self.drop(-3.0, 1.1, 5.0).outcome == "failed"

    def test_what_is_not_shown_does_not_pass(self) -> None:
        unshown = self.drop(-1.0, 0.2, 1.4)
        assert unshown.passed is False
        assert not verdict([unshown])

    def test_it_says_how_many_images_would_show_it(self) -> None:
        # 1.2 beyond 0.2 must shrink to 0.8: (1.2 / 0.8)² = 2.25 times as many, rounded up to two digits.
        unshown = self.drop(-1.0, 0.2, 1.4)
        assert unshown.images_needed == 230
        assert unshown.reason == "with 100 images; about 230 would show it"

    def test_on_the_bound_no_number_of_images_is_enough(self) -> None:
        on_it = self.drop(0.0, 1.0, 2.0)
        assert (on_it.outcome, on_it.images_needed) == ("not shown", None)
        assert on_it.reason is not None and "no number of images" in on_it.reason

    def test_correlations_are_judged_by_their_lower_end(self) -> None:
        ends = {"pearson_mean": Interval(0.97, 0.999), "pearson_p5": Interval(0.95, 0.99)}
        assert outcomes("int8", replace(GOOD, maps=replace(MAPS, intervals=ends)))["int8_map_pearson_mean"] is False

    @pytest.mark.parametrize("n", [1, 2, 29])
    def test_a_handful_of_images_shows_nothing_however_equal_they_are(self, n: int) -> None:
        ends = None if n == 1 else Interval(0.0, 0.0)
        few = replace(GOOD, n=n, intervals={"top1_drop_points": ends})
        check = check_comparison("int8", few, Gates())[0]
        assert (check.outcome, check.images_needed) == ("not shown", 30)
        assert check.reason is not None and "it takes 30 at least" in check.reason
        assert check_comparison("int8", replace(few, n=30), Gates())[0].passed is (n > 1)

    def test_an_export_is_judged_image_by_image_without_one(self) -> None:
        exact = check_comparison("fp32", GOOD, Gates())
        assert all(check.interval is None and check.passed for check in exact)


def test_another_input_than_in_training_fails() -> None:
    trained = ImageInput(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert check_input("fp32", trained, trained).passed
    changes = {"resize": "squash", "mean": (0.4, 0.5, 0.5), "crop_fraction": 0.9, "interpolation": "bicubic"}
    for name, value in changes.items():
        stated = replace(trained, **{name: value})  # type: ignore[arg-type]
        assert check_input("fp32", trained, stated).outcome == "failed"


def test_maps_that_follow_nothing_fail() -> None:
    follows = Sanity("class", "int8", 1.0, 0.3, {"changed": Interval(1.0, 1.0), "pearson": None})
    assert check_sanity(follows, "gradcam", Gates()).passed
    assert check_sanity(replace(follows, changed=0.0), "gradcam", Gates()).outcome == "failed"


def test_a_method_without_classes_is_held_against_pictures_only() -> None:
    still = Sanity("class", "int8", 0.0, 1.0, {"changed": Interval(0.0, 0.0), "pearson": None})
    unmeasured = check_sanity(still, "eigencam", Gates())
    assert unmeasured.outcome == "not measured"
    assert unmeasured.reason == "eigencam explains no class in particular"
    assert check_sanity(replace(still, test="picture"), "eigencam", Gates()).outcome == "failed"


class TestBudgets:
    FOOTPRINT = Footprint(parameters=1_000_000, file_mb=4.0, latency_ms=10.0, threads=1, peak_memory_mb=100.0)

    def test_only_what_the_device_limits_is_asked(self) -> None:
        assert check_budgets("int8", self.FOOTPRINT, Budgets()) == ()
        checks = check_budgets("int8", self.FOOTPRINT, Budgets(file_mb=4.0, parameters=999_999))
        assert {check.key: check.passed for check in checks} == {"int8_file_mb": True, "int8_parameters": False}

    def test_what_was_measured_here_says_so(self) -> None:
        checks = check_budgets("int8", self.FOOTPRINT, Budgets(latency_ms=9.0, peak_memory_mb=128))
        assert checklist(checks) == [
            "[x] int8 peak memory, measured here  100.00 MB  (<= 128 MB)",
            "[ ] int8 latency, measured here      10.00 ms   (<= 9 ms)  FAILED",
        ]

    def test_memory_that_cannot_be_told_is_not_measured(self) -> None:
        unknown = replace(self.FOOTPRINT, peak_memory_mb=None)
        (check,) = check_budgets("int8", unknown, Budgets(peak_memory_mb=128))
        assert check.outcome == "not measured"


def check(measured: float | None, bound: float, passed: bool | None, **changes: object) -> Check:
    outcome = "not measured" if passed is None else "passed" if passed else "failed"
    made = Check("key", "some check", measured, ">=", bound, "correlation", outcome)  # type: ignore[arg-type]
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_verdict_needs_a_measurement_and_no_failure() -> None:
    good, bad, unknown = check(1.0, 0.9, True), check(0.1, 0.9, False), check(None, 0.9, None)
    assert verdict([good]) and verdict([good, unknown])
    assert not verdict([good, bad]) and not verdict([unknown]) and not verdict([])


class TestChecklist:
    def test_lines_read_like_a_list_that_was_ticked(self) -> None:
        checks = [
            *check_comparison("fp32", GOOD, Gates()),
            *check_comparison("int8", replace(GOOD, top1_drop_points=None, agreement=0.5), Gates()),
        ]
        assert checklist(checks) == [
            "[x] fp32 top-1 agreement              100.00 %                    (>= 100 %)",
            "[x] fp32 map error                    3.0e-06                     (<= 0.0001)",
            "[-] int8 top-1 drop                   not measured: the images have no labels",
            "[ ] int8 top-1 agreement              50.00 %   [100.00, 100.00]  (>= 90 %)  FAILED",
            "[x] int8 map Pearson, mean            0.995     [0.995, 0.995]    (>= 0.98)",
            "[x] int8 map Pearson, 5th percentile  0.960     [0.995, 0.995]    (>= 0.9)",
        ]

    @pytest.mark.parametrize(
        ("failed", "shown"),
        [
            (check(0.97996, 0.98, False), "0.97996"),
            (check(0.99999, 1.0, False, unit="share"), "99.999 %"),
            (check(1.004, 1.0, False, unit="points", relation="<="), "1.004 points"),
            (check(1.0004e-4, 1e-4, False, unit="error", relation="<="), "1.0004e-04"),
            (check(0.99972, 0.98, True), "0.9997"),
            (check(0.9999999, 0.98, True), "1.000"),
            (check(math.nan, 0.98, False), "not a number"),
            (check(math.inf, 1e-4, False, unit="error", relation="<="), "infinite"),
        ],
    )
    def test_rounding_never_contradicts_the_verdict(self, failed: Check, shown: str) -> None:
        assert f"  {shown}  (" in checklist([failed])[0]

    def test_what_is_not_shown_says_what_would_show_it(self) -> None:
        ends = Interval(0.9799, 1.0)
        unshown = check(0.99, 0.98, True, outcome="not shown", interval=ends, reason="with 9 images; …")
        (line,) = checklist([unshown])
        assert line == "[?] some check  0.990  [0.9799, 1.000]  (>= 0.98)  NOT SHOWN with 9 images; …"

    def test_nothing_to_check_is_an_empty_list(self) -> None:
        assert checklist([]) == []
