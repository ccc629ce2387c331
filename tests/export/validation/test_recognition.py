"""Recognition of unfamiliar samples: AUROC, detection, checks, report and page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from scipy.stats import mannwhitneyu
from small_nets import SPEC, HeadNet, randomised
from torch import nn

import kdedge_export
from kdedge_export import FamiliaritySamples, Models, ValidationSet
from kdedge_export.familiarity.threshold import fit_threshold
from kdedge_export.metrics.auroc import auroc
from kdedge_export.metrics.confidence import SHARE, Interval, mean_interval
from kdedge_export.metrics.unfamiliar import MAX_KNOWN, DetectionDrop, Recognition, Rejection, recognition
from kdedge_export.tasks.classification import CLASSIFICATION
from kdedge_export.validation import Gates, json_schema, write_report
from kdedge_export.validation.familiarity_checks import check_recognition
from kdedge_runtime import Model

LABELS = ("red", "green", "blue")


def colors(count: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy samples with a dominant primary color, and their classes."""
    rng, numbers = np.random.default_rng(seed), np.arange(count) % classes
    samples = rng.integers(0, 90, (count, *SPEC.shape))
    samples[np.arange(count), ..., numbers] += 120
    return samples.astype(np.uint8), numbers


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return randomised(HeadNet(nn.Linear(12, 3)))


@pytest.fixture(scope="module")
def files(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("recognized")
    samples = FamiliaritySamples(*colors(90, 0), colors(120, 1)[0])
    path = kdedge_export.export(network, SPEC, LABELS, folder / "model.onnx", familiarity=samples).path
    int8 = kdedge_export.quantize(path, colors(60, 0)[0], familiarity=FamiliaritySamples(known=colors(120, 1)[0])).path
    assert int8 is not None
    return {"fp32": Model.load(path, threads=1), "int8": Model.load(int8, threads=1, exact_sums=True)}


def test_auroc_is_the_statistic_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    known, others = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 60).round(1)  # with ties
    assert auroc(known, others) == pytest.approx(mannwhitneyu(known, others).statistic / (40 * 60))
    assert auroc(np.ones(3), np.ones(4)) == 0.5
    assert np.isnan(auroc(np.ones(3), np.empty(0)))


def test_noise_is_recognized_and_known_samples_are_not(files: dict[str, Model]) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (80, *SPEC.shape), dtype=np.uint8)
    found = recognition(files, "fp32", colors(120, 1)[0], {"noise": noise, "nothing": noise[:0]}, CLASSIFICATION)
    assert found is not None and {row.group for row in found.groups} == {"noise"}
    stored = files["fp32"].metadata.familiarity
    assert stored is not None and stored.threshold == found.threshold
    fp32, int8 = found.groups
    assert (fp32.model, int8.model, fp32.samples) == ("fp32", "int8", 80)
    assert fp32.auroc > 0.95 and fp32.detected is not None and fp32.detected > 0.9
    direct = files["fp32"].predict(noise)
    softmax = files["fp32"].predict(colors(120, 1)[0]).scores.max(axis=1)
    assert fp32.max_softmax_auroc == pytest.approx(auroc(softmax, direct.scores.max(axis=1)))
    assert found.known[0].rejected == pytest.approx(stored.rejected / 120) and found.known[0].rise is None
    assert found.known[1].rise is not None and abs(found.known[1].rise) < 0.1
    (drop,) = found.drops
    assert int8.detected is not None
    assert (drop.model, drop.samples) == ("int8", 80) and drop.drop == pytest.approx(fp32.detected - int8.detected)


def measured(rejected: float = 0.02, rise: float = 0.0, drop: float = 0.0, samples: int = 1000) -> Recognition:
    """Return a recognition with these values, and narrow intervals of the paired differences."""
    near = lambda value: Interval(value - 0.002, value + 0.002)  # noqa: E731
    known = (
        Rejection("fp32", samples, rejected, None, {"rejected": near(rejected)}),
        Rejection("int8", samples, rejected + rise, rise, {"rejected": near(rejected), "rise": near(rise)}),
    )
    return Recognition("discriminant-cosine", 0.5, known, (), (DetectionDrop("int8", samples, drop, near(drop)),))


@pytest.mark.parametrize(
    ("found", "outcomes"),
    [
        (measured(), ("passed", "passed", "passed")),
        (measured(rejected=0.06), ("failed", "passed", "passed")),
        (measured(rejected=0.051), ("passed", "passed", "passed")),
        (measured(rejected=0.06, samples=58), ("failed", "passed", "passed")),
        (measured(samples=58), ("inconclusive", "passed", "passed")),
        (measured(samples=59), ("passed", "passed", "passed")),
        (measured(rise=0.04), ("passed", "failed", "passed")),
        (measured(rise=0.029), ("passed", "inconclusive", "passed")),
        (measured(drop=0.05), ("passed", "passed", "failed")),
        (measured(rise=-0.2, drop=-0.2), ("passed", "passed", "passed")),
    ],
)
def test_checks(found: Recognition, outcomes: tuple[str, ...]) -> None:
    checks = check_recognition(found, Gates())
    assert [check.key for check in checks] == ["fp32_known_rejected", "int8_known_rejected_rise", "int8_detection_drop"]
    assert tuple(check.outcome for check in checks) == outcomes
    known = found.known[0]
    assert checks[0].measured == known.rejected and checks[0].interval == known.intervals["rejected"]
    assert (checks[0].reason is None) == (known.rejected <= 0.05 and known.samples >= 59)


def rejection(unknown: np.ndarray) -> Recognition:
    """Return the recognition of an fp32 file that calls these known samples unknown."""
    rejected = unknown.astype(np.float64)
    row = Rejection("fp32", len(unknown), float(rejected.mean()), None, {"rejected": mean_interval(rejected, SHARE)})
    return Recognition("discriminant-cosine", 0.5, (row,), (), ())


@pytest.mark.parametrize("n", [300, 1000, 3000])
def test_fitted_threshold_passes_on_independent_samples(n: int) -> None:
    rng = np.random.default_rng(n)
    passed = 0
    for _ in range(200):
        fitted = fit_threshold(rng.normal(size=min(n, 1500)))
        assert fitted is not None
        (check,) = check_recognition(rejection(rng.normal(size=min(n, MAX_KNOWN)) < fitted.value), Gates())
        passed += check.outcome == "passed"
    assert passed >= 0.99 * 200


@pytest.mark.parametrize(("share", "outcome"), [(0.04, "passed"), (0.1, "failed"), (0.2, "failed")])
def test_raised_threshold_fails(share: float, outcome: str) -> None:
    (check,) = check_recognition(rejection(np.arange(1000) < 1000 * share), Gates())
    assert check.outcome == outcome and check.measured is not None and check.interval is not None
    assert check.measured == share > check.interval.low


def test_no_checks_without_a_threshold() -> None:
    assert check_recognition(None, Gates()) == []
    assert check_recognition(replace(measured(), threshold=None, known=(), drops=()), Gates()) == []


def test_report_has_unfamiliar_samples(files: dict[str, Model], network: nn.Module, tmp_path: Path) -> None:
    samples, targets = colors(120, 1)
    other = np.random.default_rng(3).integers(0, 256, (30, *SPEC.shape), dtype=np.uint8)
    student = kdedge_export.exportable(network, SPEC)
    report, evidence = kdedge_export.validate(
        Models(student, files["fp32"], {"int8": files["int8"]}),
        ValidationSet(samples, LABELS, targets, unfamiliar={"other things": other}),
        quick=True,
    )
    assert report.familiarity is not None
    groups = {row.group for row in report.familiarity.groups}
    assert groups == {"other things", "textures and noise"}
    keys = {check.key for check in report.checks}
    assert {"fp32_known_rejected", "int8_known_rejected_rise", "int8_detection_drop"} <= keys
    page, document = write_report(report, evidence, tmp_path)
    text, values = page.read_text("utf-8"), json.loads(document.read_text("utf-8"))
    assert "Unfamiliar samples" in text and "other things" in text and "AUROC" in text
    Draft202012Validator(json_schema()).validate(values)
    assert values["familiarity"]["threshold"] == report.familiarity.threshold
    assert not any("threshold of familiarity" in note for note in report.notes)
