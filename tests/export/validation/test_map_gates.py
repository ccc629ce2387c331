"""Gates of sanity and faithfulness of the maps."""

import math
from dataclasses import replace

import pytest

from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.faithfulness import Faithfulness
from kdedge_export.metrics.sanity import Sanity
from kdedge_export.validation import Check, Gates, checklist
from kdedge_export.validation.gates import (
    check_faithfulness,
    check_sanity,
    check_unchanged,
)


@pytest.mark.parametrize("test", ["class", "sample", "head"])
@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_sanity_check_has_the_fields_of_its_bound(test: str, method: str) -> None:
    ends = Interval(0.2, 0.5)
    row = Sanity(test, "int8", 0.3, 0.3, {"map_similarity": ends, "pearson": None})  # type: ignore[arg-type]
    found = check_sanity(row, 12, method, Gates(max_map_similarity=0.7))
    assert (found.key, found.relation, found.bound, found.unit) == (
        f"int8_map_similarity_{test}", "<=", 0.7, "correlation",
    )  # fmt: skip
    words = {"class": "another class", "sample": "another sample", "head": "a random head"}
    assert found.name.startswith("int8 map") and found.name.endswith(words[test])
    if method == "eigencam" and test != "sample":
        assert (found.outcome, found.measured, found.interval) == ("not measured", None, None)
    else:
        assert (found.outcome, found.measured, found.interval) == ("passed", 0.3, ends)


def test_samples_needed_for_sanity_assume_one_unchanged_map() -> None:
    unsure = Sanity("class", "int8", 0.9, 0.9, {"map_similarity": Interval(0.8, 1.0), "pearson": None})
    found = check_sanity(unsure, 12, "gradcam", Gates())
    # See `confidence.samples_needed`: an unseen image scores 1.
    unseen = -math.log(0.025) * 0.1
    assert found.samples_needed == math.ceil(unseen / 0.08 + (12 - unseen / 0.1) * (0.1 / 0.08) ** 2)


@pytest.mark.parametrize(
    ("test", "outcome", "needed", "token"),
    [("class", "not measured", None, "no other class"), ("sample", "inconclusive", 2, "1 sample")],
)
def test_impossible_change_is_reported_with_its_reason(test: str, outcome: str, needed: int | None, token: str) -> None:
    found = check_unchanged("fp32", test, Gates(max_map_similarity=0.7))  # type: ignore[arg-type]
    bound = (found.key, found.measured, found.relation, found.bound, found.unit)
    assert bound == (f"fp32_map_similarity_{test}", None, "<=", 0.7, "correlation")
    changed = Sanity(test, "fp32", 0.3, 0.3, {"map_similarity": Interval(0.2, 0.5), "pearson": None})  # type: ignore[arg-type]
    assert found.name == check_sanity(changed, 12, "gradcam", Gates()).name
    assert (found.outcome, found.samples_needed) == (outcome, needed)
    assert token in (found.reason or "")


def test_maps_that_do_not_change_fail_the_sanity_check() -> None:
    follows = Sanity("class", "int8", 0.3, 0.3, {"map_similarity": Interval(0.2, 0.5), "pearson": None})
    assert check_sanity(follows, 12, "gradcam", Gates()).passed
    assert check_sanity(replace(follows, map_similarity=0.99), 12, "gradcam", Gates()).outcome == "failed"


def test_sanity_check_uses_the_interval() -> None:
    unsure = Sanity("sample", "int8", 0.5, 0.5, {"map_similarity": Interval(0.1, 0.99), "pearson": None})
    few = check_sanity(unsure, 3, "gradcam", Gates())
    assert (few.outcome, few.samples_needed) == ("inconclusive", 4)
    # The check never uses more images than this.
    most = check_sanity(unsure, 64, "gradcam", Gates())
    assert (most.outcome, most.samples_needed) == ("inconclusive", None)
    assert most.reason == "with 64 samples, the maximum for this check"


def test_class_agnostic_method_is_checked_with_images_only() -> None:
    still = Sanity("class", "int8", 1.0, 1.0, {"map_similarity": Interval(0.9, 1.0), "pearson": None})
    unmeasured = check_sanity(still, 64, "eigencam", Gates())
    assert unmeasured.outcome == "not measured"
    assert unmeasured.reason == "eigencam is class-agnostic"
    assert check_sanity(replace(still, test="sample"), 64, "eigencam", Gates()).outcome == "failed"


class TestFaithfulness:
    def check(self, images: int, margin: float, low: float) -> Check:
        found = Faithfulness(0.2, 0.5, margin, {"margin": Interval(low, margin + 0.1)})
        return check_faithfulness("int8", found, images, Gates())

    def test_faithfulness_must_significantly_exceed_random_maps(self) -> None:
        shown, broken = self.check(32, 0.07, 0.03), self.check(32, -0.01, -0.1)
        assert (shown.key, shown.outcome, broken.outcome) == ("int8_map_margin", "passed", "failed")
        assert checklist([shown]) == ["[✓] int8 map more faithful than a random map  0.070  [0.030, 0.170]  (>= 0)"]

    def test_inconclusive_margin_at_the_maximum_number_of_images(self) -> None:
        unsure = self.check(64, 0.07, -0.01)
        assert (unsure.outcome, unsure.samples_needed) == ("inconclusive", None)
        fewer = self.check(30, 0.07, -0.01)
        # See `confidence.samples_needed`: an unseen image has the worst margin, -0.5, since there are few images.
        unseen = -math.log(0.025) * 0.57
        assert fewer.outcome == "inconclusive"
        assert fewer.samples_needed == math.ceil(unseen / 0.07 + (30 - unseen / 0.08) * (0.08 / 0.07) ** 2)

    def test_too_few_images_are_not_measured(self) -> None:
        few = self.check(29, -0.07, -0.1)
        assert (few.outcome, few.measured) == ("not measured", None), "29 samples prove neither"
        assert few.reason == "with 29 samples; at least 30 are needed"
