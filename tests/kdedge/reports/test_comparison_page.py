"""The comparison page is complete, offline, escaped, and readable with many runs."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_toys import epoch_line, make_run, prices, taught_line

from kdedge.pipelines.run_comparison import RunComparison
from kdedge.pipelines.run_history import read_histories
from kdedge.pipelines.run_predictions import EvaluatedSamples, RunPredictions
from kdedge.pipelines.seed_groups import SeedGroup, comparability_warnings, group_by_seed
from kdedge.reports.accuracy_chart import AccuracyChart, accuracy_chart
from kdedge.reports.class_table import class_rows
from kdedge.reports.comparison_page import render_page
from kdedge.reports.disagreement_gallery import disagreement_gallery
from kdedge.reports.learning_curves import learning_curves
from kdedge.reports.run_settings import run_settings
from kdedge.reports.run_styles import styles_of_runs
from kdedge.reports.run_tables import runs_table
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_export.modalities import modality_of
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

LABELS = ("bird", "cat", "dog")
TARGETS = np.array([0] * 4 + [1] * 4 + [2] * 2)
INPUT = ImageInput(8, 8, (0.5,) * 3, (0.25,) * 3)


def predictions(
    title: str,
    predicted: list[int],
    *,
    with_maps: bool = True,
    labels: tuple[str, ...] = LABELS,
    task: str = "classify",
) -> RunPredictions:
    """Build confident predictions for ten images."""
    rng = np.random.default_rng(len(title))
    images = np.full((10, 8, 8, 3), 128, dtype=np.uint8)
    names = tuple(f"val/{number}.png" for number in range(10))
    logits = 5.0 * np.eye(3, dtype=np.float32)[predicted]
    maps = rng.normal(size=(10, 4, 4)).astype(np.float32) if with_maps else None
    return RunPredictions(
        title,
        EvaluatedSamples("data", labels, "f", images, TARGETS, names, INPUT, "classify"),
        labels,
        task,
        Predictions(logits, maps, TARGETS),
    )


def comparison(folder: Path, settings: dict[str, dict[str, Any]], **parts: Any) -> RunComparison:
    runs = read_histories([make_run(folder / name, **options) for name, options in settings.items()])
    groups = group_by_seed(runs)
    fields = {"parameters": {}, "predictions": (), "teachers": (), "notes": ()} | parts
    return RunComparison(runs=runs, groups=groups, warnings=tuple(comparability_warnings(runs, groups)), **fields)


def taught(*points: tuple[float, float]) -> dict[str, Any]:
    """Return options of a run whose only epochs have these figures: top-1 and map Pearson."""
    origin = {"source": "/teacher", "weights": None, "weights_sha256": "a" * 64}
    lines = [taught_line(number, top1, top1, pearson) for number, (top1, pearson) in enumerate(points, start=1)]
    return {"teacher": origin, "epochs": lines}


def test_settings_are_text(tmp_path: Path) -> None:
    one, two = {"measured": ()}, {"measured": ("hint", "at")}
    assert "measured" not in run_settings(comparison(tmp_path / "none", {"a": one, "b": one})).shared
    assert run_settings(comparison(tmp_path / "some", {"a": two, "b": two})).shared["measured"] == "hint, at"
    mixed = run_settings(comparison(tmp_path / "mixed", {"a": one, "b": two}))
    assert mixed.differing["measured"] == ("none", "hint, at")


class Reader(HTMLParser):
    """HTML parser that collects tags and text, and checks that tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []
        self.text = re.sub(r"\s*\n\s*", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class TestPage:
    def test_page_is_complete_and_loads_nothing(self, tmp_path: Path) -> None:
        shown = (predictions("a", [0] * 10), predictions("b", [1] * 10))
        settings = {"a": taught((0.5, 0.2), (0.6, 0.4)), "b": taught((0.5, 0.8))}
        page = render_page(comparison(tmp_path, settings, predictions=shown, teachers=(predictions("t", [2] * 10),)))
        reader = Reader(page)
        assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object"}
        assert not re.findall(r"https?://|@import|url\((?!#)", page)
        assert "$" not in page
        pictures = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
        assert pictures and all(source and source.startswith("data:image/jpeg;base64,") for source in pictures)
        for heading in ("Runs", "Learning curves", "Accuracy against map Pearson", "Classes", "Samples"):
            assert heading in reader.text

    def test_each_run_has_a_line_in_each_chart(self, tmp_path: Path) -> None:
        settings = {f"kd-{seed}": taught((0.4, 0.1), (0.5, 0.3)) | {"seed": seed} for seed in range(12)}
        page = render_page(comparison(tmp_path, settings | {"teacher": {}}))
        curves = [attributes for tag, attributes in Reader(page).tags if (attributes.get("class")) == "curve"]
        drawn = [int(attributes["data-run"] or -1) for attributes in curves]
        assert [drawn.count(number) for number in range(13)] == [4] * 12 + [2]
        lines = re.findall(r'<g class="curve" data-run="(\d+)">.*?<path [^>]*style="([^"]*)"', page, re.DOTALL)
        assert len(lines) == len(curves)
        assert len({style for _, style in lines}) == 13, "no two runs have the same style"
        assert len(set(lines)) == 13, "a run has the same style in each chart"

    def test_untrusted_text_is_escaped(self, tmp_path: Path) -> None:
        evil = "<script>alert(1)<"
        shown = (predictions(evil, [0] * 10, labels=("<b>", "&", '"x"')), predictions("b", [1] * 10))
        page = render_page(
            comparison(tmp_path, {evil: {"loss": {"<i>": 1.0}}, "b": {}}, predictions=shown, notes=(evil,))
        )
        assert "<script" not in page and "<i>" not in page
        assert evil in Reader(page).text

    def test_runs_on_different_images_are_not_ranked(self, tmp_path: Path) -> None:
        alike = render_page(comparison(tmp_path / "1", {"a": {}, "b": {}}))
        assert "Highest top-1: a, 75.0" in Reader(alike).text.replace("\u00a0", " ")
        unlike = Reader(render_page(comparison(tmp_path / "2", {"a": {}, "b": {"fingerprint": "e" * 64}}))).text
        assert "not ranked" in unlike and "Highest top-1" not in unlike

    def test_maps_are_not_ranked_across_teachers(self, tmp_path: Path) -> None:
        one, two = taught((0.8, 0.9)), taught((0.7, 0.6))
        alike = Reader(render_page(comparison(tmp_path / "1", {"a": one, "b": two}))).text
        assert "Maps closest to the teacher’s: a, r = 0.900" in alike
        other = two | {"teacher": {"source": "/another", "weights": None, "weights_sha256": "b" * 64}}
        unlike = Reader(render_page(comparison(tmp_path / "2", {"a": one, "b": other}))).text
        assert "not comparable between these" in unlike and "Maps closest" not in unlike
        assert "Highest top-1 of the students: a" in unlike

    def test_ranking_uses_test_images_if_all_runs_have_them(self, tmp_path: Path) -> None:
        """Validation images selected each run's best epoch."""

        def tested(top1: float) -> dict[str, Any]:
            return {"result": {"test": {"best": {"test_top1": top1}, "last": {"test_top1": 0.0}}}}

        better, worse = taught((0.8, 0.9)), taught((0.7, 0.6))
        both = comparison(tmp_path / "1", {"a": better | tested(0.65), "b": worse | tested(0.68)})
        text = Reader(render_page(both)).text.replace("\u00a0", " ")
        assert "Highest top-1 of the students, on the test samples: b, 68.0%" in text
        assert "Maps closest to the teacher’s: a" in text, "maps were not measured on them"
        one = comparison(tmp_path / "2", {"a": better, "b": worse | tested(0.99)})
        assert "Highest top-1 of the students: a, 80.0%" in Reader(render_page(one)).text.replace("\u00a0", " ")

    def test_run_without_epoch_has_a_row(self, tmp_path: Path) -> None:
        text = Reader(render_page(comparison(tmp_path, {"a": {}, "b": {"epochs": [], "finished": False}}))).text
        assert "0 of 2" in text

    def test_non_finite_metrics_are_omitted(self, tmp_path: Path) -> None:
        lines = [epoch_line(1, 0.5, val_loss=math.nan), epoch_line(2, 0.6, val_loss=math.inf)]
        page = render_page(comparison(tmp_path, {"a": {"epochs": lines, "finished": False}}))
        assert "nan" not in page.split("</style>")[1] and "Cross-entropy," not in page


class TestLooks:
    def group(self, name: str, runs: int, folder: Path) -> SeedGroup:
        histories = read_histories([make_run(folder / f"{name}-{seed}", seed=seed) for seed in range(runs)])
        return SeedGroup(name, histories)

    def test_seeds_share_a_color_and_styles_are_unique(self, tmp_path: Path) -> None:
        groups = [self.group(name, runs, tmp_path) for name, runs in (("a", 3), ("b", 2), ("c", 7))]
        styles = styles_of_runs(groups)
        assert len(set(styles.values())) == len(styles) == 12
        assert [{styles[run.name].color for run in group.runs} for group in groups[:2]] == [{0}, {1}]

    def test_forty_runs_have_unique_styles(self, tmp_path: Path) -> None:
        groups = [self.group(f"g{number}", 1, tmp_path) for number in range(40)]
        assert len(set(styles_of_runs(groups).values())) == 40


class TestCurves:
    def test_best_epoch_is_marked(self, tmp_path: Path) -> None:
        shown = comparison(tmp_path, {"a": taught((0.5, 0.2), (0.7, 0.3), (0.6, 0.4))})
        charts = learning_curves(shown.runs, styles_of_runs(shown.groups))
        assert [chart.title for chart in charts] == ["Top-1, %", "Agreement, %", "Map Pearson", "Cross-entropy"]
        for chart in charts:
            (line,) = re.findall(r'<g class="curve".*?</g>\s*</g>', str(chart.svg), re.DOTALL)
            corners = re.findall(r"[ML] ([\d.]+) ([\d.]+)", re.findall(r'<path d="([^"]*)" clip', line)[0])
            dots = re.findall(r'<use [^>]*?x="([\d.]+)" y="([\d.]+)"', line)
            assert len(corners) == 3 and dots == [corners[1]]

    def test_axis_ends_with_the_longest_curve(self, tmp_path: Path) -> None:
        short = taught((0.5, 0.2), (0.7, 0.3))
        plain = {name: value for name, value in epoch_line(40, 0.5).items() if not name.startswith("val_")}
        alone = comparison(tmp_path / "alone", {"a": short})
        beside_trees = comparison(tmp_path / "beside", {"a": short, "b": {"epochs": [plain]}})
        first, second = (
            learning_curves(shown.runs, styles_of_runs(shown.groups))[0] for shown in (alone, beside_trees)
        )
        marks = [re.findall(r">(\d+)</text>", str(chart.svg)) for chart in (first, second)]
        assert marks[0] == marks[1]

    def test_cross_entropy_over_decades_is_logarithmic(self, tmp_path: Path) -> None:
        lines = [epoch_line(number, 0.5, val_loss=10.0 ** (2 - number)) for number in range(1, 4)]
        shown = comparison(tmp_path, {"a": {"epochs": lines}})
        chart = learning_curves(shown.runs, styles_of_runs(shown.groups))[-1]
        assert {"0.1", "0.2", "0.5", "1", "2", "5", "10"} <= set(re.findall(r">([\d.]+)</text>", str(chart.svg)))


def regressions(*values: float, target: str = "price") -> dict[str, Any]:
    """Return options of a distilled regression whose epochs have these R²."""
    origin = {"source": "/teacher", "weights": None, "weights_sha256": "a" * 64}
    lines = [taught_line(number, 0.0, 0.5, 0.25) for number in range(1, len(values) + 1)]
    for line, value in zip(lines, values, strict=True):
        del line["val_top1"]
        line |= {"val_r2": value, "val_mae": 40_000 * (1 - value), "val_loss": 1 - value}
    return {"teacher": origin, "epochs": lines, "labels": (target,), "task": "regression"}


class TestRegressions:
    """Runs of regressions are compared by R² and mean absolute error."""

    def test_table_has_the_metrics_of_the_task(self, tmp_path: Path) -> None:
        shown = comparison(tmp_path, {"a": regressions(0.25, 0.75, 0.5), "b": regressions(-0.5)})
        table = runs_table(shown, run_settings(shown), styles_of_runs(shown.groups))
        assert table.headings[2:6] == ("R²", "mean abs. error", "agreement %", "map Pearson")
        assert [row.cells[1:3] for row in table.rows] == [("0.750", "10,000"), ("−0.500", "60,000")]
        assert [row.cells[5:7] for row in table.rows] == [("0.500", "20,000"), ("−0.500", "60,000")]

    @pytest.mark.parametrize(
        ("targets", "unit"),
        [
            (("price [EUR]", "price [EUR]"), "EUR"),
            (("price [EUR]", "price [kEUR]"), None),
            (("price [EUR]", "price"), None),
        ],
    )
    def test_errors_of_one_unit_have_it(self, targets: tuple[str, str], unit: str | None, tmp_path: Path) -> None:
        settings = {name: regressions(0.25, target=target) for name, target in zip("ab", targets, strict=True)}
        shown = comparison(tmp_path, settings | {"classes": {}})
        table = runs_table(shown, run_settings(shown), styles_of_runs(shown.groups))
        assert table.headings[4] == ("mean abs. error" if unit is None else f"mean abs. error [{unit}]")
        curves = {chart.title: chart.note for chart in learning_curves(shown.runs, styles_of_runs(shown.groups))}
        title = "Mean absolute error" if unit is None else f"Mean absolute error, {unit}"
        assert ("unit of the target" in curves[title]) == (unit is None)

    def test_page_ranks_and_draws_them(self, tmp_path: Path) -> None:
        shown = comparison(tmp_path, {"a": regressions(0.25), "b": regressions(0.75)})
        page = render_page(shown)
        leader = re.search(r"Highest R².*?<b>(\w+)</b>, ([\d.]+)\. ", page)
        assert leader is not None and leader.groups() == ("b", "0.750")
        assert "op-1" not in page
        titles = [chart.title for chart in learning_curves(shown.runs, styles_of_runs(shown.groups))]
        assert titles == ["R²", "Mean absolute error", "Agreement, %", "Map Pearson"]
        drawn = accuracy_chart(shown.groups, styles_of_runs(shown.groups))
        assert drawn is not None and ">R²</text>" in str(drawn.svg) and drawn.svg.count('class="mark"') == 2


class TestPredictedValues:
    def test_rows_with_the_most_different_values_are_first(self) -> None:
        one, other = [0.0] * 12, [0.0] * 12
        one[3], other[3] = -50, 1234.5
        other[10] = 700
        first, second, *_ = disagreement_gallery((prices("a", one), prices("b", other)), [prices("t", [1.0] * 12)])
        assert (first.name, first.target) == ("rows.csv:3", "400 EUR")
        shown = {cell.title: cell.prediction for cell in first.cells}
        assert shown == {
            "t": ("401 EUR", "+1", False),
            "a": ("350 EUR", "−50", False),
            "b": ("1,634 EUR", "+1,234", False),
        }
        assert all(cell.map is not None for cell in first.cells)
        assert second.name == "rows.csv:10" and second.cells[1].prediction == ("1,100 EUR", "0", False)

    def test_maps_count_beside_values(self) -> None:
        one, other = prices("a", [0.0] * 4), prices("b", [0.0] * 4)
        assert one.predictions.maps is not None and other.predictions.maps is not None
        other.predictions.maps[2] *= -1
        assert disagreement_gallery((one, other), [])[0].name == "rows.csv:2"
        other.predictions.logits[1] += np.float32(2 * np.std([100, 200, 300, 400]))  # more than opposite maps
        assert [row.name for row in disagreement_gallery((one, other), [])][:2] == ["rows.csv:1", "rows.csv:2"]

    def test_value_that_is_not_finite_is_none(self) -> None:
        shown = disagreement_gallery((prices("a", [0.0] * 4), prices("b", [0.0, 0.0, math.nan, 9.0])), [])
        assert shown[0].name == "rows.csv:2" and shown[0].cells[1].prediction == (None, "", False)

    def test_rows_have_the_columns_of_the_bars_of_all_models(self) -> None:
        spec = TabularInput(
            tuple(TableColumn(f"{place}", "numeric", None, (0.0, 1.0), (), (0.5,)) for place in range(20))
        )
        maps = {"a": np.eye(20, dtype=np.float32)[[[19]]], "b": np.eye(20, dtype=np.float32)[[[15]]]}
        rows = np.zeros((1, 20), np.float32)

        def of_rows(title: str) -> RunPredictions:
            plain = prices(title, [0.0])
            samples = replace(plain.samples, samples=rows, input=spec)
            return replace(plain, samples=samples, predictions=replace(plain.predictions, maps=maps[title]))

        (shown,) = disagreement_gallery((of_rows("a"), of_rows("b")), [])
        modality = modality_of(spec)
        assert shown.image == modality.figure_uri(modality.thumbnail(rows[0], [maps["a"][0], maps["b"][0]]))
        assert shown.image != modality.figure_uri(modality.thumbnail(rows[0]))

    def test_page_shows_values_and_errors_instead_of_classes(self, tmp_path: Path) -> None:
        runs = (
            prices("a", [10.0] * 40, with_maps=False),
            prices("b", [30.0] * 20 + [0.0] * 19 + [math.nan]),
        )
        settings = {name: regressions(0.25, target="price [EUR]") for name in "ab"}
        page = render_page(comparison(tmp_path, settings, predictions=runs, teachers=(prices("t", [5.0] * 40),)))
        text = Reader(page).text
        assert "Errors" in text and "Samples" in text and "Classes" not in text and "Top-1" not in text
        assert "measured [EUR]" in text and "error in EUR of a" in text
        table = page[page.index("<h2>Errors") :]
        rows = re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', table, re.DOTALL)
        cells = {label: re.findall(r"<td[^>]*>\s*(.*?)\s*</td>", text) for label, text in rows if "EUR" not in label}
        assert cells["100 … 1,000"] == ["10", "10", "+20"]
        assert cells["2,100 … 3,000"] == ["10", "10", "−10"]
        assert "–" in cells["3,100 … 4,000"][2] and "–" in cells["all"][2]
        changes = re.findall(r'<td class="(gain|loss|same)"', table)
        assert changes == ["same", "loss", "loss", "gain", "same"]
        assert "<b>4,000 EUR</b> measured" in page and "<b>4,010 EUR</b> +10" in page and "no prediction" in page

    def test_values_without_a_unit_are_plain(self, tmp_path: Path) -> None:
        runs = prices("a", [10.0] * 20, target="price"), prices("b", [30.0] * 20, target="price")
        page = render_page(comparison(tmp_path, {name: regressions(0.25) for name in "ab"}, predictions=runs))
        assert ">measured</th>" in page and "Mean absolute error of a" in page and "<b>110</b> +10" in page


class TestAccuracyChart:
    def drawn(self, folder: Path, settings: dict[str, dict[str, Any]]) -> AccuracyChart | None:
        groups = comparison(folder, settings).groups
        return accuracy_chart(groups, styles_of_runs(groups))

    def test_maps_are_preferred_to_agreement(self, tmp_path: Path) -> None:
        drawn = self.drawn(tmp_path, {"a": taught((0.5, 0.2)), "b": taught((0.4, 0.1)), "t": {}})
        assert drawn is not None
        assert (drawn.over, drawn.left_out) == ("map Pearson", ("t",))
        assert drawn.svg.count('class="mark"') == 2

    def test_agreement_without_maps_and_nothing_without_teachers(self, tmp_path: Path) -> None:
        mapless = taught((0.5, 0.2)) | {"epochs": [epoch_line(1, 0.5, val_agreement=0.6)]}
        drawn = self.drawn(tmp_path / "1", {"a": mapless, "b": mapless, "c": taught((0.5, 0.2))})
        assert drawn is not None and drawn.over == "agreement"
        assert self.drawn(tmp_path / "2", {"a": taught((0.5, 0.2)), "t": {}}) is None

    def test_seeds_share_a_legend_entry(self, tmp_path: Path) -> None:
        seeds = {f"kd-{seed}": taught((0.4 + seed / 10, 0.1)) | {"seed": seed} for seed in range(3)}
        drawn = self.drawn(tmp_path, seeds | {"other": taught((0.5, 0.3)) | {"loss": {"kd": 1.0}}})
        assert drawn is not None and drawn.svg.count('class="mark"') == 4
        texts = re.findall(r"<text [^>]*>([^<]*)</text>", str(drawn.svg))
        assert [text for text in texts if text == "other" or text.startswith("kd")] == ["kd-{0,1,2}", "other"]


class TestClasses:
    def test_class_with_the_largest_loss_is_first(self, tmp_path: Path) -> None:
        baseline = predictions("base", [0, 0, 0, 1, 1, 1, 1, 1, 2, 0])  # bird 75%, cat 100%, dog 50%
        other = predictions("other", [0, 0, 0, 0, 1, 0, 0, 1, 2, 2])  # bird 100%, cat 50%, dog 100%
        rows = {row.label: (row.samples, *row.accuracy, *row.changes) for row in class_rows([baseline, other])}
        assert list(rows) == ["all", "cat", "bird", "dog"]
        assert rows["cat"] == (4, 1.0, 0.5, -0.5)
        assert rows["dog"] == (2, 0.5, 1.0, 0.5)
        assert rows["all"] == (10, 0.8, 0.8, 0.0)
        page = render_page(comparison(tmp_path, {"base": {}, "other": {}}, predictions=(baseline, other)))
        shown = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', page, re.DOTALL)
        cells = {label: re.findall(r"<td[^>]*>(.*?)</td>", text) for label, text in shown}
        assert cells["cat"] == ["4", "100.0%", "−50.0"]
        assert cells["dog"] == ["2", "50.0%", "+50.0"]
        assert cells["all"] == ["10", "80.0%", "0.0"]

    def test_single_run_shows_its_worst_class_first(self) -> None:
        rows = class_rows([predictions("one", [0, 0, 0, 1, 1, 1, 1, 1, 2, 0])])
        assert [row.label for row in rows] == ["all", "dog", "bird", "cat"]


class TestGallery:
    def test_image_with_different_predictions_is_first(self, tmp_path: Path) -> None:
        one, other = ([0] * 10 for _ in range(2))
        other[7] = 1
        runs = (predictions("a", one, with_maps=False), predictions("b", other, with_maps=False))
        shown = disagreement_gallery(runs, [])
        first = shown[0]
        assert first.name == "val/7.png"
        assert all(cell.map is None for row in shown for cell in row.cells)
        assert [first.target, *(cell.prediction.text for cell in first.cells)] == ["cat", "bird", "cat"]
        assert [cell.prediction.is_wrong for cell in first.cells] == [True, False]
        assert [cell.prediction.detail for cell in first.cells] == ["99%", "99%"]
        page = render_page(comparison(tmp_path, {"a": {}, "b": {}}, predictions=runs))
        assert page.count("no map") == 2 * len(shown) and page.count('<em class="wrong">') >= len(shown)

    def test_equal_predictions_in_another_order_of_classes_do_not_differ(self) -> None:
        one, other = [0, 1] * 5, [2, 1] * 5  # bird and cat, in both orders
        one[3], other[3] = 2, 2  # dog, and bird
        runs = (
            predictions("a", one, with_maps=False),
            predictions("b", other, with_maps=False, labels=("dog", "cat", "bird")),
        )
        shown = disagreement_gallery(runs, [])
        assert shown[0].name == "val/3.png"
        assert [len({cell.prediction.text for cell in row.cells}) > 1 for row in shown] == [True] + [False] * (
            len(shown) - 1
        )

    def test_prediction_of_an_embedding_has_its_similarity(self) -> None:
        runs = predictions("a", [0] * 10), predictions("b", [1] * 10, task="embedding")
        assert [cell.prediction.detail for cell in disagreement_gallery(runs, [])[0].cells] == ["99%", "5.00"]

    def test_prediction_that_is_not_finite_is_none_and_wrong(self) -> None:
        runs = predictions("a", [0] * 10), predictions("b", [0] * 10)
        runs[1].predictions.logits[2] = np.nan
        first = disagreement_gallery(runs, [])[0]
        assert first.name == "val/2.png" and first.cells[1].prediction == (None, "", True)

    def test_single_run_is_compared_with_its_teacher(self) -> None:
        student = predictions("a", [0] * 10)
        assert disagreement_gallery([student], []) == []
        rows = disagreement_gallery([student], [predictions("the teacher", [1] * 10)])
        assert [cell.title for cell in rows[0].cells] == ["the teacher", "a"]
