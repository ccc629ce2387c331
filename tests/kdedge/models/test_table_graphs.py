"""Models of scikit-learn as teachers of tables, through ONNX."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kdedge
from kdedge.data.table_schema import ColumnSchema, TableSchema
from kdedge.models.onnx_model import OnnxClassifier
from kdedge_runtime.errors import ModelFileError, UsageError

COLUMNS = tuple(ColumnSchema(name, "numeric", low=-3.0, high=3.0) for name in ("a", "b"))
SCHEMA = TableSchema("answer", "classify", ("no", "yes"), COLUMNS)


def data() -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    return rows, (rows[:, 0] - rows[:, 1] > 0).astype(np.int64)


def write(path: Path, model: object) -> Path:
    rows, targets = data()
    model.fit(rows, targets)  # type: ignore[attr-defined]
    graph = to_onnx(model, rows[:1], options={"zipmap": False})
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.mark.parametrize(
    "model", [make_pipeline(StandardScaler(), LogisticRegression()), GradientBoostingClassifier(n_estimators=10)]
)
def test_probabilities_of_scikit_learn_become_logits(tmp_path: Path, model: object) -> None:
    path = write(tmp_path / "model.onnx", model)
    SCHEMA.write(tmp_path / "schema.json")
    teacher = OnnxClassifier.load(path, modality="tabular")
    assert teacher.classes == 2 and not teacher.has_map
    rows, _ = data()
    logits, maps = teacher(torch.from_numpy(rows))
    expected = model.predict_proba(rows)  # type: ignore[attr-defined]
    assert maps is None
    np.testing.assert_allclose(logits.softmax(dim=1), expected, rtol=1e-3, atol=1e-4)


def test_student_learns_from_scikit_learn(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", make_pipeline(StandardScaler(), LogisticRegression()))
    SCHEMA.write(tmp_path / "schema.json")
    rows, targets = data()
    lines = [f"{a},{b},{('no', 'yes')[target]}" for (a, b), target in zip(rows.tolist(), targets, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["b,a,answer", *(_swapped(line) for line in lines)]), "utf-8")
    run = kdedge.distill(
        tmp_path / "table.csv",
        path,
        "mlp:8",
        target="answer",
        loss="ce:0.1,kd:0.9",
        epochs=8,
        lr=0.02,
        output=tmp_path / "run",
        device="cpu",
    )
    assert run.record.result is not None and run.record.result["best"]["val_agreement"] > 0.9
    assert [column.name for column in run.record.input.features] == ["a", "b"], "the order of the teacher"


def _swapped(line: str) -> str:
    a, b, answer = line.split(",")
    return f"{b},{a},{answer}"


def test_graphs_without_a_schema_or_of_images_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", LogisticRegression())
    with pytest.raises(UsageError, match=r"schema\.json"):
        OnnxClassifier.load(path, modality="tabular")
    TableSchema("answer", "classify", ("no", "yes"), COLUMNS[:1]).write(tmp_path / "schema.json")
    with pytest.raises(UsageError, match=r"1 columns.*takes 2"):
        OnnxClassifier.load(path, modality="tabular")
    image = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)).eval()
    torch.onnx.export(image, (torch.zeros(1, 3, 4, 4),), tmp_path / "image.onnx", dynamo=True, verbose=False)
    with pytest.raises(ModelFileError, match="not a model of tables"):
        OnnxClassifier.load(tmp_path / "image.onnx", modality="tabular")
