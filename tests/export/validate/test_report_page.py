"""The page says what the report says, shows the worst first, and needs nothing but itself."""

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from validate_toys import LABELS, METADATA, Toy, model_file, pictures

from kdedge_export.candidates import Role
from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.localization import Localisation
from kdedge_export.validate import Check, Data, Evidence, Footprint, Models, ValidationReport, ValidationSet, validate
from kdedge_export.validate.check import judge
from kdedge_export.validate.page import render_page
from kdedge_export.validate.page.histogram import histogram, lower_end
from kdedge_export.validate.page.image_choice import choose
from kdedge_export.validate.page.map_pairs import lost_and_kept
from kdedge_export.validate.sampled_metrics import Sampled

IMAGES = pictures(80)
STUDENT = Toy()


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[ValidationReport, Evidence]:
    folder = tmp_path_factory.mktemp("models")
    return validate(
        Models(
            student=STUDENT,
            fp32=model_file(STUDENT, folder / "model.onnx"),
            int8=model_file(STUDENT, folder / "model.int8.onnx", noise=0.2),
            teacher=Toy(seed=7, stride=2),
        ),
        ValidationSet(
            images=IMAGES,
            labels=LABELS,
            targets=np.arange(len(IMAGES)) % len(LABELS),
            names=[f"val/{number:03}.png" for number in range(len(IMAGES))],
            source=Data("toys", "5e" * 32),
        ),
    )


class Reader(HTMLParser):
    """Collects tags and checks that they are closed in order."""

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
    return reader


def test_it_is_whole_and_loads_nothing(validated: tuple[ValidationReport, Evidence]) -> None:
    page = render_page(*validated)
    reader = read(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object"}
    sources = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert sources and all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.findall(r"https?://|@import|url\(", page)
    assert "$" not in page
    assert len(page.encode()) < 6_000_000


def test_it_shows_the_verdict_and_every_check(validated: tuple[ValidationReport, Evidence]) -> None:
    report, evidence = validated
    text = read(render_page(report, evidence)).text
    failed = sum(check.passed is False for check in report.checks)
    assert failed and f"Failed {failed} of {len(report.checks)} checks" in text
    assert all(check.name in text for check in report.checks)


def test_top1_says_that_its_images_chose_the_epoch(validated: tuple[ValidationReport, Evidence]) -> None:
    report, evidence = validated
    chosen = replace(report, data=replace(report.data, chose_epoch=True))
    text = read(render_page(chosen, evidence)).text
    assert text.count("of images that chose the epoch") == 3, "student, fp32 and int8"
    assert "points), on images that chose the student’s epoch. Its maps" in text
    assert "chose the" not in read(render_page(report, evidence)).text


def test_it_shows_every_study_and_what_was_left_out(validated: tuple[ValidationReport, Evidence]) -> None:
    report, evidence = validated
    footprints: dict[Role, Footprint] = {
        "fp32": Footprint(parameters=76_070, file_mb=0.3, latency_ms=2.0, threads=1, peak_memory_mb=70.0),
        "int8": Footprint(parameters=76_070, file_mb=0.1, latency_ms=3.0, threads=1, peak_memory_mb=None),
    }
    noted = {"latency_ms": {"fp32": 4.0, "int8": 2.0, "machine": "a workbench"}}
    models = dict(report.models) | {"int8": replace(report.models["int8"], quantization=noted)}
    shown = replace(report, footprints=footprints, models=models, notes=("the teacher is left out: gone",))
    text = read(render_page(shown, evidence)).text
    titles = ("What the maps are worth", "Do the maps depend on anything", "On worse pictures")
    for title in (*titles, "Are the probabilities true", "Class by class", "What it takes", "Lost and kept maps"):
        assert title in text
    assert "the teacher is left out: gone" in text
    assert "int8 is not faster but slower than fp32 here (3.00 against 2.00 ms): run the fp32 file there." in text
    assert "int8 is 2.00 times as fast as fp32 at export, on a workbench (2.00 against 4.00 ms)." in text
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
    "calibration_images": 171,
    "float_layers": ["layer1.0.conv1", "<b>"],
    "goal": {"keep_heatmaps": 0.98, "max_drop": 0.5},
    "held_out": {"images": 85, "top1": 0.925, "agreement": 0.98, "map_pearson": 0.98765, "loss": 0.02},
    "device": "raspberry-pi-5",
}


def test_how_it_was_quantized_is_told_in_words(validated: tuple[ValidationReport, Evidence]) -> None:
    report, evidence = validated

    def page(**more: object) -> str:
        facts = replace(report.models["int8"], quantization=NOTE | more, arithmetic="exact sums")
        return read(render_page(replace(report, models=dict(report.models) | {"int8": facts}), evidence)).text

    text = page()
    assert "int8 of 7 bits, so that processors without VNNI compute the same; a scale for each output channel" in text
    assert "by least relative entropy, on 171 training images" in text
    assert "by least relative entropy0.0125chosen" in text and "smallest to the largest value seen0.0600" in text
    assert "and 2 layers: layer1.0.conv1, <b>" in text
    assert "maps that correlate at 0.98 or more and at most 0.5 points of top-1 lost" in text
    assert "this file292.5\u00a0%98.0\u00a0%0.9880.0200" in text
    assert "raspberry-pi-5" in text and "sha256 c0ffee" in text
    assert "Judged withexact sums" in text
    assert '{"' not in text and "calibration_loss" not in text, "raw JSON"
    qat = {"epochs": 3, "taken": True, "before": NOTE["held_out"] | {"agreement": 0.9, "float_layers": 4}}
    tuned = page(qat=qat | {"after": NOTE["held_out"] | {"float_layers": 2}})
    assert "for 3 epochs with int8’s errors (--qat): it keeps more, and is this file" in tuned
    assert "as it was492.5\u00a0%90.0" in tuned and "errors (this file)292.5\u00a0%98.0" in tuned


def test_what_a_files_metadata_says_is_text_and_never_part_of_the_page(
    validated: tuple[ValidationReport, Evidence],
) -> None:
    report, evidence = validated
    evil = "<form action=//elsewhere>"
    told = dict.fromkeys(("weights", "activations", "calibration", "calibration_images", "calibration_sha256"), evil)
    kept = NOTE["held_out"] | {"float_layers": evil}
    training = {"epochs": evil, "taken": True, "before": kept, "after": kept}
    for more in ({}, {"qat": training}):
        note = NOTE | told | {"device": evil, "float_layers": [evil], "held_out": kept | {"images": evil}} | more
        facts = replace(report.models["int8"], quantization=note)
        page = render_page(replace(report, models=dict(report.models) | {"int8": facts}), evidence)
        assert evil not in page
        assert escape(evil) in page


def test_a_file_that_tells_little_of_its_quantization_has_a_page_all_the_same(
    validated: tuple[ValidationReport, Evidence],
) -> None:
    report, evidence = validated
    for note, told in (({}, False), ({"device": "a board"}, True)):
        facts = replace(report.models["int8"], quantization=note)
        text = read(render_page(replace(report, models=dict(report.models) | {"int8": facts}), evidence)).text
        assert ("How it was quantized" in text) is told


def test_what_is_not_shown_is_neither_a_pass_nor_a_failure(validated: tuple[ValidationReport, Evidence]) -> None:
    report, evidence = validated
    shown = Check("a", "some check", 0.99, ">=", 0.98, "correlation", "passed", Interval(0.985, 0.995))
    reason = "with 80 images; about 900 would show it"
    unshown = replace(shown, outcome="not shown", interval=Interval(0.95, 1.0), images_needed=900, reason=reason)
    page = render_page(replace(report, checks=(shown, unshown)), evidence)
    text = read(page).text
    assert "Not shown: 1 of 2 checks needs more than 80 images" in text
    assert f"not shown {reason}" in text and "[0.950, 1.000]" in text
    assert '<header class="unknown">' in page


def test_what_no_number_of_images_shows_is_not_said_to_need_more(
    validated: tuple[ValidationReport, Evidence],
) -> None:
    report, evidence = validated
    shown = Check("a", "some check", 0.99, ">=", 0.98, "correlation", "passed", Interval(0.985, 0.995))
    ill = replace(shown, outcome="not shown", interval=None, reason="since float32 alone explains up to 4e-02")
    few = replace(ill, images_needed=900)
    for checks, headline in (
        ((shown, ill), "Not shown: 1 of 2 checks, which more images would not change"),
        ((ill, few, few), "Not shown: 1 of 3 checks, which more images would not change; 2 need more than 80 images"),
        ((shown, few, few), "Not shown: 2 of 3 checks need more than 80 images"),
    ):
        assert headline in read(render_page(replace(report, checks=checks), evidence)).text


@pytest.mark.parametrize(("labelled", "whose"), [(True, "right class"), (False, "PyTorch student’s answer")])
def test_maps_that_point_at_objects_say_of_which_class_they_are(
    validated: tuple[ValidationReport, Evidence], labelled: bool, whose: str
) -> None:
    report, evidence = validated
    place = Localisation(0.8, 0.7, {"pointing": None, "energy_inside": None})
    located = replace(report, labelled=labelled, localisation=Sampled(40, {"int8": place}))
    text = read(render_page(located, evidence)).text
    assert f"40 images say where the object is; maps are of the {whose}." in text


def test_lost_and_kept_maps_stand_side_by_side(validated: tuple[ValidationReport, Evidence]) -> None:
    _, evidence = validated
    scores = evidence.pearson["int8"]
    found = [float(value) for value in re.findall(r"r = ([−\d.]+)", lost_and_kept(evidence).replace("−", "-"))]
    ranked = np.sort(scores)
    assert found == pytest.approx([*ranked[:3], *ranked[: -3 - 1 : -1]], abs=1e-3)
    assert lost_and_kept(replace(evidence, pearson={})) == ""


def test_what_was_not_measured_is_not_called_a_pass(tmp_path: Path) -> None:
    fp32 = model_file(STUDENT, tmp_path / "model.onnx")
    report, evidence = validate(Models(STUDENT, fp32), ValidationSet(IMAGES, LABELS))
    kept = [check for check in report.checks if check.passed][:2]
    unmeasured = judge("key", "some check", None, ">=", 1.0, "share", "there is none")
    text = read(render_page(replace(report, checks=(*kept, unmeasured)), evidence)).text
    assert "Passed, but 1 of 3 checks could not be measured" in text
    assert "not measured: there is none" in text


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
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
    def test_the_worst_maps_come_first_and_changed_answers_next(
        self, validated: tuple[ValidationReport, Evidence]
    ) -> None:
        _, evidence = validated
        sections = {section.title: section.rows for section in choose(evidence)}
        assert list(sections) == ["Worst maps", "Changed answers", "Farthest from the teacher", "Typical images"]
        student, int8 = (evidence.predictions[role].logits.argmax(axis=1) for role in ("student", "int8"))
        assert all(student[row] != int8[row] for row in sections["Changed answers"])
        scores = evidence.pearson["int8"]
        worst = [scores[row] for row in sections["Worst maps"]]
        assert worst == sorted(worst)
        others = set(range(len(IMAGES))) - set(sections["Worst maps"])
        assert max(worst) <= min(scores[row] for row in others)

    def test_no_image_is_shown_twice(self, validated: tuple[ValidationReport, Evidence]) -> None:
        rows = [row for section in choose(validated[1]) for row in section.rows]
        assert len(rows) == len(set(rows))

    def test_without_maps_there_are_still_pictures(self, tmp_path: Path) -> None:
        fp32 = model_file(STUDENT, tmp_path / "model.onnx", without_map=True)
        _, evidence = validate(Models(STUDENT, fp32), ValidationSet(IMAGES, LABELS))
        assert [section.title for section in choose(evidence)] == ["Typical images"]


class TestHistogram:
    def test_every_image_is_in_a_bar(self) -> None:
        scores = np.random.default_rng(0).uniform(-1, 1, 500)
        counts = re.findall(r": (\d+)</title>", histogram(scores, 0.1, -1.0))
        assert sum(map(int, counts)) == 500

    def test_the_floor_is_marked_where_it_is_known(self) -> None:
        scores = np.linspace(0.5, 1.0, 20)
        assert "shuffled 0.250" in histogram(scores, 0.25, 0.0)
        assert "shuffled" not in histogram(scores, float("nan"), 0.0)

    def test_without_scores_it_says_so(self) -> None:
        assert "No pair of maps" in histogram(np.array([np.nan]), 0.1, 0.0)

    @pytest.mark.parametrize(("values", "low"), [([0.3, 0.9], 0.0), ([-0.1], -0.25), ([-1.0], -1.0), ([np.nan], 0.0)])
    def test_the_axis_shows_everything_and_zero(self, values: list[float], low: float) -> None:
        assert lower_end(values) == low
