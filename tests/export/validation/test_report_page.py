"""Report page: complete, worst images first, and self-contained."""

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from validate_toys import LABELS, METADATA, Toy, model_file, pictures

from kdedge_export.html.text import correlation
from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.localization import Localization
from kdedge_export.validation import (
    Check,
    Data,
    Footprint,
    Models,
    SampleGallery,
    ValidationReport,
    ValidationSet,
    validate,
)
from kdedge_export.validation.check import check_value
from kdedge_export.validation.page import render_page
from kdedge_export.validation.page.histogram import histogram, lower_end
from kdedge_export.validation.page.sample_choice import choose
from kdedge_export.validation.page.sample_gallery import lowest_and_highest
from kdedge_export.validation.sampled_metrics import Sampled

IMAGES = pictures(80)
STUDENT = Toy()


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[ValidationReport, SampleGallery]:
    folder = tmp_path_factory.mktemp("models")
    return validate(
        Models(
            student=STUDENT,
            fp32=model_file(STUDENT, folder / "model.onnx"),
            converted={"int8": model_file(STUDENT, folder / "model.int8.onnx", noise=0.2)},
            teacher=Toy(seed=7, stride=2),
        ),
        ValidationSet(
            samples=IMAGES,
            labels=LABELS,
            targets=np.arange(len(IMAGES)) % len(LABELS),
            names=[f"val/{number:03}.png" for number in range(len(IMAGES))],
            source=Data("toys", "5e" * 32),
        ),
    )


class Reader(HTMLParser):
    """Collect tags and check that they are closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    reader.text = re.sub(r"\s*\n\s*", " ", reader.text)
    return reader


def test_page_is_well_formed_and_self_contained(validated: tuple[ValidationReport, SampleGallery]) -> None:
    page = render_page(*validated)
    reader = read(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object"}
    sources = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert sources and all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.findall(r"https?://|@import|url\((?!#)", page)
    assert "$" not in page
    assert len(page.encode()) < 6_000_000


def test_page_shows_the_verdict_and_every_check(validated: tuple[ValidationReport, SampleGallery]) -> None:
    report, evidence = validated
    text = read(render_page(report, evidence)).text
    failed = sum(check.passed is False for check in report.checks)
    assert failed and f"Failed {failed} of {len(report.checks)} checks" in text
    assert all(check.name in text for check in report.checks)


def test_page_has_auroc_of_two_classes_only(validated: tuple[ValidationReport, SampleGallery]) -> None:
    report, evidence = validated
    assert "AUROC" not in read(render_page(report, evidence)).text
    area = {"auroc": 0.9512, "auroc_interval": Interval(0.91, 0.98)}
    models = {name: replace(facts, **area) for name, facts in report.models.items()}
    text = read(render_page(replace(report, models=models), evidence)).text
    assert text.count("0.951") == len(models) and text.count("0.910 – 0.980") == len(models)
    assert "Hanley and McNeil" in text


def test_page_marks_accuracy_on_images_that_selected_the_epoch(
    validated: tuple[ValidationReport, SampleGallery],
) -> None:
    report, evidence = validated
    chosen = replace(report, data=replace(report.data, selected_epoch=True))
    text = read(render_page(chosen, evidence)).text
    assert text.count("samples selected the student’s epoch") == 1
    assert "points), on samples used to select the student’s epoch. The maps" in text
    assert "epoch" not in read(render_page(report, evidence)).text


def test_page_shows_every_section_and_the_notes(validated: tuple[ValidationReport, SampleGallery]) -> None:
    report, evidence = validated
    footprints: dict[str, Footprint] = {
        "fp32": Footprint(parameters=76_070, file_mb=0.3, latency_ms=2.0, threads=1, peak_memory_mb=70.0),
        "int8": Footprint(parameters=76_070, file_mb=0.1, latency_ms=3.0, threads=1, peak_memory_mb=None),
    }
    noted = {"latency_ms": {"fp32": 4.0, "int8": 2.0, "machine": "a workbench"}}
    models = dict(report.models) | {"int8": replace(report.models["int8"], quantization=noted)}
    shown = replace(report, footprints=footprints, models=models, notes=("the teacher is skipped: missing",))
    text = read(render_page(shown, evidence)).text
    titles = ("Faithfulness of the maps", "Sanity checks", "Robustness")
    for title in (
        *titles,
        "Calibration",
        "Results by class",
        "Size, latency and memory",
        "Maps with the lowest and highest agreement",
    ):
        assert title in text
    assert report.localization is None and "n the object" not in text
    assert "the teacher is skipped: missing" in text
    assert "int8 is slower than fp32 here (3.00 vs 2.00 ms)" in text
    assert "int8 is 2.00 times as fast as fp32 at export, on a workbench (2.00 vs 4.00 ms)." in text
    assert all(facts.sha256 in text for facts in shown.models.values() if facts.sha256 is not None)
    assert "fingerprint 5e5e" in text
    assert "--quick" not in text and "--quick" in read(render_page(replace(shown, quick=True), evidence)).text


NOTE = {
    "weights": "int8",
    "per_channel": True,
    "activations": "uint8",
    "reduce_range": True,
    "calibration": "entropy",
    "calibration_loss": {"minmax": 0.06, "entropy": 0.0125},
    "calibration_sha256": "c0ffee",
    "calibration_samples": 171,
    "float_layers": ["layer1.0.conv1", "<b>"],
    "goal": {"min_map_correlation": 0.98, "max_drop": 0.5},
    "held_out": {"samples": 85, "accuracy": 0.925, "agreement": 0.98, "map_pearson": 0.98765, "loss": 0.02},
    "device": "raspberry-pi-5",
}


def test_quantization_section_describes_the_metadata(validated: tuple[ValidationReport, SampleGallery]) -> None:
    report, evidence = validated

    def page(**more: object) -> str:
        facts = replace(report.models["int8"], quantization=NOTE | more, arithmetic="exact sums")
        return read(render_page(replace(report, models=dict(report.models) | {"int8": facts}), evidence)).text

    text = page()
    assert "7 bits" in text
    assert ", on 171 training samples" in text
    assert "0.0125chosen" in text and "0.0600" in text
    assert "and 2 layers: layer1.0.conv1, <b>" in text
    assert "map correlation of 0.98 or more and top-1 drop of at most 0.5 points" in text
    assert "this file292.5%98.0%0.9880.0200" in text
    assert "raspberry-pi-5" in text and "sha256 c0ffee" in text
    assert "exact sums" in text
    assert '{"' not in text and "calibration_loss" not in text, "raw JSON"
    dense = {key: value for key, value in NOTE.items() if not key.startswith("calibration")}
    facts = replace(report.models["int8"], quantization=dense | {"format": "weights", "activations": "float32"})
    text = read(render_page(replace(report, models=dict(report.models) | {"int8": facts}), evidence)).text
    assert "Activationsfloat32" in text and "int8 of dense layers" in text
    assert "range per tensor" not in text and "training samples not used for calibration" in text


def test_metadata_values_are_escaped_in_the_page(
    validated: tuple[ValidationReport, SampleGallery],
) -> None:
    report, evidence = validated
    evil = "<form action=//elsewhere>"
    has_target = dict.fromkeys(
        ("weights", "activations", "calibration", "calibration_samples", "calibration_sha256"), evil
    )
    kept = NOTE["held_out"] | {"float_layers": evil}
    note = NOTE | has_target | {"device": evil, "float_layers": [evil], "held_out": kept | {"samples": evil}}
    facts = replace(report.models["int8"], quantization=note)
    page = render_page(replace(report, models=dict(report.models) | {"int8": facts}), evidence)
    assert evil not in page
    assert escape(evil) in page


def test_page_renders_with_incomplete_quantization_metadata(
    validated: tuple[ValidationReport, SampleGallery],
) -> None:
    report, evidence = validated
    for note, has_target in (({}, False), ({"device": "a board"}, True)):
        facts = replace(report.models["int8"], quantization=note)
        text = read(render_page(replace(report, models=dict(report.models) | {"int8": facts}), evidence)).text
        assert ("Target device" in text) is has_target


def test_inconclusive_check_is_neither_passed_nor_failed(validated: tuple[ValidationReport, SampleGallery]) -> None:
    report, evidence = validated
    shown = Check("a", "some check", 0.99, ">=", 0.98, "correlation", "passed", Interval(0.985, 0.995))
    reason = "with 80 samples; about 900 needed to confirm"
    unshown = replace(shown, outcome="inconclusive", interval=Interval(0.95, 1.0), samples_needed=900, reason=reason)
    page = render_page(replace(report, checks=(shown, unshown)), evidence)
    text = read(page).text
    assert "Undecided: 1 of 2 checks needs more than 80 samples" in text
    assert f"inconclusive {reason}" in text and "[0.950, 1.000]" in text
    assert '<header class="unknown">' in page


def test_headline_asks_for_more_images_only_if_they_would_help(
    validated: tuple[ValidationReport, SampleGallery],
) -> None:
    report, evidence = validated
    shown = Check("a", "some check", 0.99, ">=", 0.98, "correlation", "passed", Interval(0.985, 0.995))
    ill = replace(shown, outcome="inconclusive", interval=None, reason="since float32 alone explains up to 4e-02")
    few = replace(ill, samples_needed=900)
    for checks, headline in (
        ((shown, ill), "Undecided: 1 of 2 checks would not be settled by more samples"),
        ((ill, few, few), "Undecided: 1 of 3 checks would not be settled by more samples; 2 need more than 80 samples"),
        ((shown, few, few), "Undecided: 2 of 3 checks need more than 80 samples"),
    ):
        assert headline in read(render_page(replace(report, checks=checks), evidence)).text


@pytest.mark.parametrize(("labeled", "reference"), [(True, "target class"), (False, "PyTorch student’s prediction")])
def test_localization_section_names_the_explained_class(
    validated: tuple[ValidationReport, SampleGallery], labeled: bool, reference: str
) -> None:
    report, evidence = validated
    place = Localization(0.8, 0.7, {"pointing": None, "energy_inside": None})
    located = replace(report, has_labels=labeled, localization=Sampled(40, {"int8": place}))
    text = read(render_page(located, evidence)).text
    assert f"Maps explain the {reference}." in text


def test_lowest_and_highest_agreement_are_shown_side_by_side(validated: tuple[ValidationReport, SampleGallery]) -> None:
    _, evidence = validated
    scores = evidence.pearson["int8"]
    lowest, highest = lowest_and_highest(evidence).values()
    ranked = np.sort(scores)
    assert [pair.score for pair in lowest] == list(ranked[:3])
    assert [pair.score for pair in highest] == list(ranked[: -3 - 1 : -1])
    assert all([each.name for each in pair.maps] == ["student", "int8"] for pair in (*lowest, *highest))
    text = read(render_page(*validated)).text
    assert all(f"{pair.name} · r = {correlation(pair.score)}" in text for pair in (*lowest, *highest))
    assert lowest_and_highest(replace(evidence, pearson={})) == {}


def test_unmeasured_check_is_not_reported_as_passed(tmp_path: Path) -> None:
    fp32 = model_file(STUDENT, tmp_path / "model.onnx")
    report, evidence = validate(Models(STUDENT, fp32), ValidationSet(IMAGES, LABELS))
    kept = [check for check in report.checks if check.passed][:2]
    unmeasured = check_value("key", "some check", None, ">=", 1.0, "share", "there is none")
    text = read(render_page(replace(report, checks=(*kept, unmeasured)), evidence)).text
    assert "Passed, but 1 of 3 checks could not be measured" in text
    assert "not measured: there is none" in text


def test_names_are_escaped_in_the_page(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    fp32 = model_file(STUDENT, tmp_path / "model.onnx", metadata=replace(METADATA, labels=(evil, *LABELS[1:])))
    report, evidence = validate(
        Models(STUDENT, fp32),
        ValidationSet(IMAGES, (evil, *LABELS[1:]), names=[evil] * len(IMAGES), source=Data(evil)),
    )
    page = render_page(report, evidence)
    assert "<script" not in page
    assert evil in read(page).text


class TestChoice:
    def test_worst_maps_come_first_then_changed_predictions(
        self, validated: tuple[ValidationReport, SampleGallery]
    ) -> None:
        _, evidence = validated
        sections = {section.title: section.rows for section in choose(evidence)}
        assert list(sections) == ["Worst maps", "Changed predictions", "Farthest from the teacher", "Typical samples"]
        student, int8 = (evidence.predictions[role].logits.argmax(axis=1) for role in ("student", "int8"))
        assert all(student[row] != int8[row] for row in sections["Changed predictions"])
        scores = evidence.pearson["int8"]
        worst = [scores[row] for row in sections["Worst maps"]]
        assert worst == sorted(worst)
        others = set(range(len(IMAGES))) - set(sections["Worst maps"])
        assert max(worst) <= min(scores[row] for row in others)

    def test_no_image_appears_twice(self, validated: tuple[ValidationReport, SampleGallery]) -> None:
        rows = [row for section in choose(validated[1]) for row in section.rows]
        assert len(rows) == len(set(rows))

    def test_gallery_shows_images_without_maps(self, tmp_path: Path) -> None:
        fp32 = model_file(STUDENT, tmp_path / "model.onnx", without_map=True)
        _, evidence = validate(Models(STUDENT, fp32), ValidationSet(IMAGES, LABELS))
        assert [section.title for section in choose(evidence)] == ["Typical samples"]


def drawn(scores: np.ndarray, floor: float, low: float) -> str:
    chart = histogram(scores, floor, low)
    assert chart is not None
    return str(chart)


class TestHistogram:
    def test_every_image_is_in_a_bar(self) -> None:
        scores = np.random.default_rng(0).uniform(-1, 1, 500)
        counts = re.findall(r": (\d+)</title>", drawn(scores, 0.1, -1.0))
        assert sum(map(int, counts)) == 500

    def test_chance_level_is_marked_only_if_known(self) -> None:
        scores = np.linspace(0.5, 1.0, 20)
        assert "shuffled 0.250" in drawn(scores, 0.25, 0.0)
        assert "shuffled" not in drawn(scores, float("nan"), 0.0)

    def test_empty_scores_have_no_histogram(self) -> None:
        assert histogram(np.array([np.nan]), 0.1, 0.0) is None

    @pytest.mark.parametrize(("values", "low"), [([0.3, 0.9], 0.0), ([-0.1], -0.25), ([-1.0], -1.0), ([np.nan], 0.0)])
    def test_axis_covers_all_values_and_zero(self, values: list[float], low: float) -> None:
        assert lower_end(values) == low
