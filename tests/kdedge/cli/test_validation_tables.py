"""Tables that `kdedge validate` prints."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from kdedge.cli.validation_tables import maps_table, models_table, recognition_table, verification_table
from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.faithfulness import Faithfulness
from kdedge_export.metrics.unfamiliar import Detection, Recognition
from kdedge_export.metrics.verification import FileVerification, Verification
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.validation import ValidationReport
from kdedge_export.validation.model_facts import ModelFacts
from kdedge_export.validation.report import Data
from kdedge_export.validation.sampled_metrics import Sampled
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.precision import PRECISIONS

REPORT = ValidationReport(
    data=Data(),
    samples=60,
    has_labels=True,
    candidates=tuple(Candidate.of_file(PRECISIONS[name], None) for name in ("fp32", "int8")),
    models={},
    comparisons={},
    checks=(),
)


def text(table: Table | None) -> str:
    assert table is not None
    written = StringIO()
    Console(width=200, file=written).print(table)
    return written.getvalue()


def test_verification_has_a_row_per_file() -> None:
    rates = {"equal_error": Interval(0.03, 0.05), "true_accepts": Interval(0.86, 0.94)}
    fp32 = FileVerification("fp32", 0.042, 0.9, None, rates)
    int8 = FileVerification("int8", 0.044, 0.875, 0.025, {"equal_error": None, "true_accepts": None, "drop": None})
    report = replace(REPORT, verification=Verification(60, 4, 420, 1350, (fp32, int8)))
    shown = text(verification_table(report)).splitlines()
    assert "1,350" in shown[0] and "420" in shown[0]
    (first,) = (line for line in shown if "4.2% ± 1.0" in line)
    (second,) = (line for line in shown if "4.4%" in line)
    assert "90.0% ± 4.0" in first and "87.5%" in second and "±" not in second


def test_no_verification_without_embeddings() -> None:
    assert verification_table(REPORT) is None


@pytest.mark.parametrize(("softmax", "shown"), [(0.812, "0.812"), (None, "–")])
def test_separation_by_the_softmax_may_be_missing(softmax: float | None, shown: str) -> None:
    row = Detection("noise", "fp32", 50, 0.95, softmax, 0.9, {"detected": None})
    report = replace(REPORT, familiarity=Recognition("cosine", 0.5, (), (row,), ()))
    assert shown in text(recognition_table(report))


def test_two_classes_have_an_auroc() -> None:
    facts = {name: ModelFacts(f"{name}.onnx", 10**6, None, 0.98, auroc=0.9512) for name in ("fp32", "int8")}
    shown = text(models_table(replace(REPORT, models=facts)))
    assert "AUROC" in shown and shown.count("0.951") == 2


def test_what_was_not_measured_has_no_column() -> None:
    facts = {name: ModelFacts(f"{name}.onnx", 10**6, None, 0.98) for name in ("fp32", "int8")}
    shown = text(models_table(replace(REPORT, models=facts)))
    assert "top-1" in shown and "98.00" in shown and "size" in shown
    assert not {"AUROC", "ECE", "latency", "IoU", "agreement"} & set(shown.replace("┃", " ").split())
    rows = {"int8": Faithfulness(deletion=360_224.2, insertion=496_656.1, margin=0.5, intervals={})}
    curves = replace(REPORT, faithfulness=Sampled(64, rows), wording=EXPORT_TASKS["regression"].wording)
    shown = text(maps_table(curves))
    assert "360,224" in shown and "insertion" in shown and "on the object" not in shown and "energy" not in shown
