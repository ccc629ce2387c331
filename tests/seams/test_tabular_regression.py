"""Regressions of a column go through every step: unit, files, report, comparison, faithfulness."""

import io
import itertools
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from sklearn.metrics import r2_score
from table_toys import HEADER, make_rows, write_table

import kdedge
from kdedge.cli.compare import compare
from kdedge.cli.training_screen import Screen
from kdedge.data.dataset_options import DatasetOptions
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.pipelines.model_inspection import inspect_model
from kdedge.pipelines.run_comparison import compare_runs
from kdedge.pipelines.training_pipeline import Run
from kdedge.reports.disagreement_gallery import disagreement_gallery
from kdedge.reports.error_table import error_rows
from kdedge.reports.inspection_page import write_inspection
from kdedge_export.metrics.faithfulness import faithfulness
from kdedge_export.modalities import modality_of
from kdedge_export.validation import json_schema
from kdedge_runtime import Model
from kdedge_runtime.cli.main import main


@dataclass(frozen=True)
class Amounts:
    """Teacher and student of a regression, with what the training of the student printed."""

    data: Path
    teacher: Run
    student: Run
    printed: list[str]


@pytest.fixture(scope="module")
def amounts(tmp_path_factory: pytest.TempPathFactory) -> Amounts:
    folder, printed = tmp_path_factory.mktemp("amounts"), io.StringIO()
    data = write_table(folder / "amounts.csv", make_rows(300, task="regression"), (*HEADER[:5], "amount [EUR]"))
    options: dict[str, Any] = {"target": "amount", "task": "regression", "device": "cpu", "cache_teacher": 1}
    teacher = kdedge.train(data, "lightgbm", output=folder / "teacher", epochs=80, lr=0.2, target="amount")
    with Screen(Console(file=printed, width=200)) as screen:
        student = kdedge.distill(
            data, teacher, "mlp:32", output=folder / "student", epochs=30, lr=0.01, callback=screen, **options
        )
    return Amounts(data, teacher, student, printed.getvalue().splitlines())


def test_regression_keeps_its_unit(amounts: Amounts) -> None:
    record = amounts.student.record
    assert record.task == "regression" and record.labels == ("amount [EUR]",)
    assert record.result is not None and record.result["best"]["val_r2"] > 0.8
    assert sum(bool(re.search(r"^ +teacher .* error [\d.,]+ EUR here$", line)) for line in amounts.printed) == 1
    assert sum(bool(re.search(r"^epoch .* error [\d.,]+ EUR ", line)) for line in amounts.printed) == 30
    described = TRAINING_MODALITIES["tabular"].describe(str(amounts.data), DatasetOptions(target="amount"))[-1]
    low, high = (float(each) for each in described[3].split(" … "))
    assert described[2] == "EUR" and low < 500 < 1500 < high


def test_files_and_report_of_a_regression_have_no_classes(
    amounts: Amounts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(amounts.student.folder, tmp_path / "student"))
    kdedge.export(run, precisions=["int8"])
    validated = kdedge.validate(run, quick=True)
    page = validated.page.read_text(encoding="utf-8")
    assert "same output" in page and "R²" in page and "of their variance" in page
    assert not re.search(r"same class: |same class on|different classes|>Top-1</th>|<em class=.wrong", page)
    report = validated.report
    assert not [check.key for check in report.checks if check.outcome == "failed"]
    inverted = [(*row[:5], f"{-float(row[5])}") for row in make_rows(300, task="regression")]
    other = write_table(tmp_path / "inverted.csv", inverted, (*HEADER[:5], "amount [EUR]"))
    bad = kdedge.validate(run, data=str(other), output=tmp_path / "bad", quick=True).report.to_dict()
    assert bad["models"]["int8"]["accuracy"] < 0 and bad["accuracy_metric"] == "R²" and not bad["passed"]
    assert Draft202012Validator(json_schema()).is_valid(json.loads(json.dumps(bad)))
    drop = next(check for check in report.checks if check.key == "int8_accuracy_drop")
    assert drop.interval is not None and drop.outcome == "passed" and (drop.unit, drop.bound) == ("variance", 0.01)
    assert not [check.key for check in report.checks if re.search("top-1|logits|KL|class", check.name)]
    assert not [check.key for check in report.checks if check.unit in ("points", "nats")]
    gain = next(check for check in report.checks if check.key == "int8_gain_over_constant")
    assert gain.measured == pytest.approx(report.models["int8"].accuracy) and gain.interval and gain.interval.high <= 1
    r2 = report.models["int8"].accuracy
    assert r2 is not None and f"R² is <b>{r2:.3f}</b>" in page
    inspected = inspect_model(str(run))
    assert inspected.labels == ("amount [EUR]",) and inspected.weights is None and inspected.structure.layers
    write_inspection(inspected, tmp_path / "inspect.html")
    assert "Regression of amount [EUR]" in (tmp_path / "inspect.html").read_text(encoding="utf-8")
    lines = tmp_path / "answers.jsonl"
    assert main([str(run / "model.onnx"), "--source", str(amounts.data), "--jsonl", str(lines)]) == 0
    assert " class " not in next(line for line in capfd.readouterr().err.splitlines() if "provider CPU" in line)
    answer = json.loads(lines.read_text(encoding="utf-8").splitlines()[0])
    assert answer["label"] == "amount [EUR]" and 0 < answer["value"] < 3000 and answer["reasons"]


def test_values_of_regressions_are_compared(
    amounts: Amounts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compared = compare_runs([amounts.student.folder])
    assert compared.notes == () and [one.title for one in compared.teachers] == ["teacher"]
    (student,), (teacher,) = compared.predictions, compared.teachers
    assert student.samples.samples.shape[1] == 5 and student.samples.ground_truth == teacher.samples.ground_truth
    for one, run in ((student, amounts.student), (teacher, amounts.teacher)):
        assert run.record.result is not None
        best = run.record.result["best"]
        measured, found = one.samples.targets, one.predictions.logits[:, 0]
        assert r2_score(measured, found) == pytest.approx(best["val_r2"], rel=1e-4)
        assert error_rows([one])[0].errors[0] == pytest.approx(best["val_mae"], rel=1e-4)
        assert one.predictions.maps is not None
        # Contributions of all columns add up to the value less that of the average row.
        rest = found - one.predictions.maps.sum(axis=(1, 2))
        np.testing.assert_allclose(rest, rest[0], atol=1e-3 * measured.std())
    row = disagreement_gallery(compared.predictions, compared.teachers)[0]
    far = np.abs(teacher.predictions.logits - student.predictions.logits)[:, 0]
    assert far[student.samples.names.index(row.name)] > np.quantile(far, 0.8)
    assert [cell.title for cell in row.cells] == ["teacher", "student"] and all(cell.map for cell in row.cells)
    compare([amounts.teacher.folder, amounts.student.folder], tmp_path / "compare.html", data=None, as_json=False)
    printed = capfd.readouterr()
    assert "mean abs. error [EUR]" in printed.out and "note" not in printed.err
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert amounts.student.record.result is not None
    assert f"{amounts.student.record.result['best']['val_r2']:.3f}" in page
    assert "EUR</b> measured" in page and not re.search("(?i)top-1|class>|cross-entr", page)


def test_faithfulness_of_a_regression_does_not_depend_on_its_unit(amounts: Amounts, tmp_path: Path) -> None:
    run = Path(shutil.copytree(amounts.student.folder, tmp_path / "student"))
    kdedge.export(run)
    graph = onnx.load(run / "model.onnx")
    (producer,) = (node for node in graph.graph.node if "logits" in node.output)
    producer.output[:] = ["cents" if name == "logits" else name for name in producer.output]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(100), "hundred"))
    place = list(graph.graph.node).index(producer) + 1
    graph.graph.node.insert(place, onnx.helper.make_node("Mul", ["cents", "hundred"], ["logits"]))
    onnx.save(graph, tmp_path / "cents.onnx")
    model, cents = Model.load(run / "model.onnx"), Model.load(tmp_path / "cents.onnx")
    with model.metadata.input.open_source(str(amounts.data), "all") as source:
        samples = np.stack([model.metadata.input.preprocess(frame.sample) for frame in itertools.islice(source, 40)])
    maps = model.predict(samples).saliency_map
    assert maps is not None
    np.testing.assert_allclose(cents.predict(samples).scores, 100 * model.predict(samples).scores, rtol=1e-5)
    smooth = modality_of(model.metadata.input).smoothed
    found, other = (
        faithfulness(each, {"fp32": maps}, samples, np.zeros(40, np.int64), smooth, {})["fp32"]
        for each in (model, cents)
    )
    assert found.margin > 0.05 and other.margin == pytest.approx(found.margin, rel=1e-3)
    assert other.insertion == pytest.approx(found.insertion, rel=1e-3)
