"""Tables go through every step: trees teach, contributions are distilled, exported, checked and shown."""

import base64
import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from table_toys import HEADER, make_rows, write_table

import kdedge
from kdedge.cli.explain import explain
from kdedge.data.table_schema import SCHEMA_FILE, read_schema
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.run_folder import read_run, write_run
from kdedge.pipelines.bundle_writer import write_bundle
from kdedge.pipelines.run_comparison import compare_runs
from kdedge.pipelines.training_pipeline import Run
from kdedge.reports.class_table import class_rows
from kdedge.reports.disagreement_gallery import disagreement_gallery
from kdedge.reports.run_settings import run_settings
from kdedge.training.run_callback import RunCallback
from kdedge_runtime import Model
from kdedge_runtime.cli.main import main
from kdedge_runtime.errors import DataError, SourceError, UsageError
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.modalities.table_column import row_sample
from kdedge_runtime.modalities.tabular import TabularInput

CREDIT = Path(__file__).parents[3] / "shared" / "data" / "german-credit.csv"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("tables") / "applicants.csv", make_rows(500))


@pytest.fixture(scope="module")
def teacher(data: Path) -> Run:
    output = data.parent / "teacher"
    return kdedge.train(data, "xgboost", target="answer", output=output, epochs=60, lr=0.2)


@pytest.fixture(scope="module")
def student(teacher: Run, data: Path) -> Run:
    output = data.parent / "student"
    options = {"target": "answer", "epochs": 25, "lr": 0.01, "cache_teacher": 1, "device": "cpu"}
    return kdedge.distill(data, teacher, "mlp:32x16", output=output, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(student: Run) -> Path:
    kdedge.export(student, precisions=["int8"])
    return student.folder


def test_trees_are_trained_into_a_run(teacher: Run) -> None:
    assert teacher.record.model.name == "xgboost" and isinstance(teacher.record.input, TabularInput)
    assert teacher.record.labels == ("no", "yes")
    assert read_run(teacher.folder).input == teacher.record.input
    schema = read_schema(teacher.folder / SCHEMA_FILE)
    assert [column.kind for column in schema.columns] == ["numeric", "numeric", "categorical", "categorical", "numeric"]
    assert schema.columns[0].unit == "EUR" and schema.columns[0].missing > 0
    assert teacher.record.result is not None and teacher.record.result["best"]["val_top1"] > 0.8


class Plan(RunCallback):
    """Keeps the lines of the plan."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int, unit: str | None) -> None:
        self.lines |= dict(lines)


def test_size_of_trees_is_that_of_their_file(files: Path, teacher: Run, data: Path, tmp_path: Path) -> None:
    size = (teacher.folder / "trees.ubj").stat().st_size
    report = kdedge.validate(files, quick=True).report
    assert report.models["teacher"].bytes == size > 0
    plan, options = Plan(), {"target": "answer", "epochs": 1, "device": "cpu"}
    kdedge.distill(data, teacher, "mlp:8", output=tmp_path / "run", callback=plan, **options)  # type: ignore[arg-type]
    assert f"{size / 1e6:.2f} MB" in plan.lines["teacher"]
    plan = Plan()
    kdedge.train(data, "xgboost", target="answer", output=tmp_path / "trees", epochs=3, callback=plan)
    assert plan.lines["samples"] == "402 for training, 98 for validation, 2 classes"
    size = (tmp_path / "trees" / "trees.ubj").stat().st_size
    assert plan.lines["trees"] == f"xgboost, 3 rounds, {size / 1e6:.2f} MB"


def test_plan_names_rows_and_the_recipe_of_tables(data: Path, tmp_path: Path) -> None:
    plan = Plan()
    kdedge.train(data, "mlp:8", target="answer", output=tmp_path / "run", epochs=1, device="cpu", callback=plan)
    assert plan.lines["samples"] == "402 for training, 98 for validation, 2 classes"
    assert plan.lines["recipe"] == "table-labels (for tabular samples)"
    assert "image" not in str(plan.lines)


def test_contributions_are_distilled(student: Run) -> None:
    assert student.record.result is not None
    best = student.record.result["best"]
    assert set(student.record.recipe["loss"]) == {"ce", "kd", "mapall"}
    assert best["val_agreement"] > 0.85 and best["val_map_pearson"] > 0.9


def test_validation_passes_with_complete_contributions(files: Path) -> None:
    report = kdedge.validate(files, quick=True).report
    outcomes = {check.key: check for check in report.checks}
    assert not [check.key for check in report.checks if check.outcome == "failed"]
    for precision in ("fp32", "int8"):
        check = outcomes[f"{precision}_completeness"]
        assert check.outcome == "passed" and check.bound == 1e-4 and check.measured is not None
    note = report.models["int8"].quantization
    assert note is not None and note["activations"] == "float32" and "calibration" not in note
    assert report.comparisons["student"].maps is not None and report.comparisons["student"].maps.pearson_mean > 0.9


def test_report_shows_waterfalls_at_a_readable_size(files: Path) -> None:
    page = kdedge.validate(files, quick=True).page.read_text(encoding="utf-8")
    assert page.count('class="gallery wide"') and 'class="halves wide"' in page and "heat map" not in page
    figures = [base64.b64decode(text) for text in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    sizes = {Image.open(io.BytesIO(figure)).size for figure in figures}
    assert len(figures) > 20 and {width for width, _ in sizes} == {640} and "data:image/jpeg" not in page
    assert len(page) < 6_000_000


@pytest.fixture
def without_city(teacher: Run, tmp_path: Path) -> Path:
    """Write the schema of the teacher with one column ignored."""
    schema = tmp_path / "edited.json"
    values = json.loads((teacher.folder / SCHEMA_FILE).read_text())
    (city,) = (column for column in values["columns"] if column["name"] == "city")
    city |= {"kind": "ignored", "categories": []}
    schema.write_text(json.dumps(values))
    return schema


def test_runs_are_compared_on_the_same_rows_with_their_own_schemas(
    teacher: Run, student: Run, data: Path, without_city: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = kdedge.train(data, "xgboost", schema=without_city, output=tmp_path / "run", epochs=20)
    options = {"target": "answer", "epochs": 2, "device": "cpu"}
    taught = kdedge.distill(data, run, "mlp:8", output=tmp_path / "taught", **options)  # type: ignore[arg-type]
    (adopted,) = (each.getMessage() for each in caplog.records if "schema of its teacher" in each.getMessage())
    assert "without city" in adopted and "job" not in adopted
    without_city.write_text((teacher.folder / SCHEMA_FILE).read_text())
    comparison = compare_runs([taught.folder, run.folder, student.folder, teacher.folder])
    assert comparison.notes == () and not any("samples" in doubt for doubt in comparison.warnings)
    assert {each.samples.fingerprint for each in comparison.predictions} == {student.record.data["fingerprint"]}
    assert [each.samples.samples.shape for each in comparison.predictions] == [(98, 4)] * 2 + [(98, 5)] * 2
    differing = run_settings(comparison).differing
    assert differing["columns"] == ("without city",) * 2 + ("all",) * 2
    assert differing["schema"] == tuple(each.record.data["schema"][:8] for each in comparison.runs)
    assert len(set(differing["schema"])) == 2, "the edited one, and that of the table"
    rows = disagreement_gallery(comparison.predictions, comparison.teachers)
    assert rows and all(cell.map is not None for row in rows for cell in row.cells)


def test_runs_are_compared_in_spite_of_another_order_of_classes(teacher: Run, data: Path, tmp_path: Path) -> None:
    values = json.loads((teacher.folder / SCHEMA_FILE).read_text())
    values["labels"].reverse()
    (tmp_path / "reversed.json").write_text(json.dumps(values))
    run = kdedge.train(data, "xgboost", schema=tmp_path / "reversed.json", output=tmp_path / "run", epochs=60, lr=0.2)
    comparison = compare_runs([teacher.folder, run.folder])
    assert comparison.notes == () and [one.labels for one in comparison.predictions] == [("no", "yes"), ("yes", "no")]
    schemas = run_settings(comparison).differing["schema"]
    assert schemas == tuple(each.record.data["schema"][:8] for each in (teacher, run))
    one, other = (each.predictions.logits for each in comparison.predictions)
    differing = np.flatnonzero((one.argmax(axis=1) == 0) != (other.argmax(axis=1) == 1))
    names = comparison.predictions[0].samples.names
    shown = [row.name for row in disagreement_gallery(comparison.predictions, [])]
    assert set(shown[: len(differing)]) >= {names[index] for index in differing[: len(shown)]}
    for row in class_rows(comparison.predictions):
        assert abs(row.changes[0]) < 0.1


def test_run_is_not_resumed_with_another_schema(data: Path, without_city: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = {"schema": without_city, "output": folder, "epochs": 1, "device": "cpu"}
    kdedge.train(data, "mlp:8", **options)  # type: ignore[arg-type]
    write_run(folder, replace(read_run(folder), result=None))
    values = json.loads(without_city.read_text())
    values["labels"].reverse()
    without_city.write_text(json.dumps(values))
    with pytest.raises(DataError, match="schema"):
        kdedge.train(data, "mlp:8", resume=True, **options)  # type: ignore[arg-type]


def test_other_data_are_read_with_the_schema_of_the_run(files: Path, tmp_path: Path) -> None:
    rows = make_rows(150, seed=3)
    other = write_table(tmp_path / "yes.csv", [row for row in rows if row[5] == "yes"])
    assert kdedge.validate(files, data=other, quick=True).report.checks, "one of the classes is enough"
    with pytest.raises(UsageError, match="USD"):
        kdedge.validate(files, data=write_table(tmp_path / "usd.csv", rows, ("income [USD]", *HEADER[1:])), quick=True)


def test_rows_that_are_not_used_are_reported(files: Path, tmp_path: Path) -> None:
    rows = make_rows(150, seed=3)
    for number, (column, cell) in enumerate([(5, ""), (1, "old"), (5, "perhaps")]):
        rows[number] = (*rows[number][:column], cell, *rows[number][column + 1 :])
    validation = kdedge.validate(files, data=write_table(tmp_path / "dirty.csv", rows), quick=True)
    assert "passed: " in repr(validation) and len(repr(validation)) < 300
    divided, note = (note for note in validation.report.notes if "dirty.csv" in note)
    assert re.match(r"\d+ of 147 samples of dirty.csv are not used", divided)
    assert note.startswith("3 of 150 samples") and all(f"dirty.csv:{number:03}" in note for number in (1, 2, 3))
    assert "without a target" in note and "'perhaps'" in note
    assert "dirty.csv:003" in validation.page.read_text(encoding="utf-8")


def test_samples_of_another_kind_are_refused_by_name(files: Path, tmp_path: Path) -> None:
    for name in ("yes", "no"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.wav").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match=r"model\.onnx takes tabular samples, but .* has audio samples") as refused:
        kdedge.validate(files, data=tmp_path)
    assert "--schema" not in str(refused.value)
    with pytest.raises(UsageError, match="takes tabular samples"):
        kdedge.export(files, precisions=["int8"], data=tmp_path)
    with pytest.raises(DataError, match="no folder or table") as refused:
        kdedge.validate(files, data=tmp_path / "missing")
    assert "image" not in str(refused.value)


@pytest.mark.parametrize("sample", [".", "yes.wav"])
def test_explanations_of_rows_need_a_table(files: Path, tmp_path: Path, sample: str) -> None:
    (tmp_path / "yes.wav").write_bytes(b"RIFF")
    with pytest.raises(SourceError, match=r"is not a table.*\*\.csv") as refused:
        kdedge.explain(files / "model.onnx", [tmp_path / sample], tmp_path / "out")
    assert "stdin" not in str(refused.value) and "--source" not in str(refused.value)


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_device_gives_an_answer_and_reasons_for_each_row(files: Path, name: str, tmp_path: Path) -> None:
    order = (3, 0, 4, 2, 1)
    header = tuple(HEADER[place].partition(" [")[0] for place in order)
    rows = [tuple(row[place] for place in order) for row in make_rows(20, seed=1)]
    lines, table = tmp_path / "answers.jsonl", write_table(tmp_path / "rows.csv", rows, header)
    options = ["--source", str(table), "--jsonl", str(lines), "-o", str(tmp_path / "drawn")]
    assert main([str(files / name), *options]) == 0
    *answers, summary = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert summary["summary"]["frames"] == len(answers) == 20 and len(list((tmp_path / "drawn").iterdir())) == 20
    columns = {title.partition(" [")[0] for title in HEADER[:5]}
    assert all({reason["column"] for reason in answer["reasons"]} == columns for answer in answers)
    strongest = [answer["reasons"][0] for answer in answers]
    assert {reason["column"] for reason in strongest} <= {"income", "job", "age"}
    units = {reason["column"]: reason.get("unit") for answer in answers for reason in answer["reasons"]}
    assert units["income"] == "EUR" and units["job"] is None
    expected = [row[5] for row in make_rows(20, seed=1)]
    assert np.mean([answer["label"] == right for answer, right in zip(answers, expected, strict=True)]) > 0.7


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_lines_are_complete(files: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named contributions and the others add up to the output minus that of the average row."""
    reasons = TabularInput.reasons
    ranked: list[str] = []

    def two_reasons(self: TabularInput, sample: np.ndarray, map_: np.ndarray, _count: int) -> list[dict[str, object]]:
        ranked.append(name)
        return reasons(self, sample, map_, 2)

    monkeypatch.setattr(TabularInput, "reasons", two_reasons)
    lines, table = tmp_path / "answers.jsonl", write_table(tmp_path / "rows.csv", make_rows(40, seed=2))
    assert main([str(files / name), "--source", str(table), "--jsonl", str(lines)]) == 0
    *answers, _ = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert len(ranked) == len(answers) == 40, "contributions are ranked once a row"
    model = Model.load(files / name)
    spec = model.metadata.input
    hidden = spec.mask(spec.reference_sample(0), np.zeros((1, *spec.mask_size), np.float32))
    average = dict(zip(model.metadata.labels, model.predict(hidden).logits[0].tolist(), strict=True))
    assert {answer["explained"] for answer in answers} == {"yes", "no"}
    assert max(abs(answer["other"]) for answer in answers) > 0.01
    for answer in answers:
        shown = sum(reason["contribution"] for reason in answer["reasons"])
        gained = answer["output"] - average[answer["explained"]]
        assert len(answer["reasons"]) == 2 and shown + answer["other"] == pytest.approx(gained, abs=1e-3)


def test_rows_from_standard_input(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"income": 9000, "age": 30, "job": "clerk", "city": "north", "noise": 0}
    odd = good | {"city": "west", "income": None}
    text = "\n".join([json.dumps(good), "{broken", json.dumps(odd), json.dumps(good | {"age": "old"})])
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    lines = tmp_path / "answers.jsonl"
    assert main([str(files / "model.onnx"), "--source", "stdin", "--jsonl", str(lines)]) == 0
    first, second, summary = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert first["label"] == "yes" and summary["summary"]["unreadable"] == 2
    values = {reason["column"]: reason["value"] for reason in second["reasons"]}
    assert values["city"] is None and values["income"] is None


def test_missing_column_ends_the_run(files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = write_table(tmp_path / "rows.csv", [row[1:] for row in make_rows(3)], HEADER[1:])
    assert main([str(files / "model.onnx"), "--source", str(table), "--jsonl", "-"]) == 2
    assert "'income'" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["occlusion", "shap", "lime", "rise"])
def test_black_box_explainers_agree_with_the_file(files: Path, method: str) -> None:
    model = Model.load(files / "model.onnx")
    spec = model.metadata.input
    names = ("income", "age", "job", "city", "noise")
    row = spec.preprocess(row_sample(names, ("9000", "30", "clerk", "north", "0")))
    explain = make_explainer(model, method, segments=5 if method in ("lime", "shap") else None)
    estimate = explain(row, 1)
    assert estimate.map.shape == (1, 5)
    assert {0, 2} >= {int(estimate.map[0].argmax())}, "income or job speaks most for the answer"
    if method == "shap":
        rows = np.stack([spec.preprocess(row_sample(names, each[:5])) for each in make_rows(8, seed=2)])
        own = model.predict(rows, class_index=1).saliency_map
        assert own is not None
        estimates = [explain(each, 1).map[0] for each in rows]
        assert np.corrcoef(np.ravel(estimates), own[:, 0].ravel())[0, 1] > 0.9


def test_self_test_passes(files: Path) -> None:
    assert main(["self-test", str(files / "model.int8.onnx"), "--device", "generic"]) == 0


def test_table_without_target_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--target COLUMN.*income"):
        kdedge.train(data, "mlp", output=tmp_path / "run")


def test_options_of_networks_are_refused_for_trees(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch-size applies to networks"):
        kdedge.train(data, "xgboost", target="answer", batch_size=8, output=tmp_path / "run")


@pytest.mark.parametrize("options", [{"flip": True}, {"recipe": "default"}])
def test_augmentation_is_refused(data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not augmented"):
        kdedge.train(data, "mlp", target="answer", output=tmp_path / "run", device="cpu", **options)


@pytest.mark.data
def test_german_credit_is_learned_with_its_reasons(tmp_path: Path) -> None:
    """On rows that neither model saw, the student ranks applicants and gives reasons as the trees."""
    if not CREDIT.is_file():
        pytest.skip(f"no {CREDIT}")
    with CREDIT.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    for side, part in {"train": rows[:600], "val": rows[600:750], "test": rows[750:]}.items():
        write_table(tmp_path / f"{side}.csv", [tuple(row) for row in part], tuple(header))
    options: dict[str, Any] = {"target": "creditability", "device": "cpu"}
    teacher = kdedge.train(tmp_path, "xgboost", output=tmp_path / "teacher", target="creditability")
    assert isinstance(teacher.record.input, TabularInput)
    kinds = [column.kind for column in teacher.record.input.features]
    assert (kinds.count("numeric"), kinds.count("categorical")) == (7, 13)
    student = kdedge.distill(
        tmp_path, teacher, "mlp", output=tmp_path / "student", epochs=40, lr=0.005, cache_teacher=1, **options
    )
    assert student.record.result is not None
    unseen = student.record.result["test"]["best"]
    assert unseen["test_map_pearson"] > 0.9 and unseen["test_agreement"] > 0.85 and unseen["test_top1"] > 0.68


def test_trees_are_not_exported(teacher: Run) -> None:
    assert "xgboost, val_top1=0." in repr(teacher) and len(repr(teacher)) < 300
    for step in (kdedge.export, kdedge.validate, lambda run: write_bundle(run.folder)):
        with pytest.raises(UsageError, match="--student mlp"):
            step(teacher)
    for modality, samples in (("audio", "sounds"), ("image", "images"), ("timeseries", "time series")):
        with pytest.raises(UsageError, match=f"are {samples}"):
            TRAINING_MODALITIES[modality].check_model("xgboost")
        with pytest.raises(UsageError, match="a network for tables"):
            TRAINING_MODALITIES[modality].check_model("mlp:8")


def test_rows_are_printed_with_their_predictions(
    files: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "rows.csv", make_rows(3))
    assert main([str(files / "model.onnx"), "--source", str(table)]) == 0
    names, answers = zip(*(line.split("  ") for line in capfd.readouterr().out.splitlines()), strict=True)
    assert len(set(names)) == 3 and all(re.fullmatch(r"(yes|no) \d+%", answer) for answer in answers)


def test_classes_that_differ_are_named(teacher: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(*row[:5], "Yes" if number % 9 == 0 else row[5]) for number, row in enumerate(make_rows(200))]
    other = write_table(tmp_path / "other.csv", rows)
    with pytest.raises(UsageError, match=r"only the data has Yes\).*--target answer"):
        kdedge.distill(other, teacher, "mlp:8", target="answer", output=tmp_path / "run", epochs=1, device="cpu")
    assert "'Yes', 'yes'" in caplog.text and "'no'" not in caplog.text


def test_page_of_rows_is_rejected_before_any_work(files: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--page needs a model of images"):
        explain(files / "model.onnx", [data], tmp_path / "explained", page=True)
    assert not (tmp_path / "explained").exists()
