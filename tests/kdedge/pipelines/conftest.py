"""Exported runs and files to validate."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from exported_runs import graph_of
from safetensors.torch import load_file, save_file

from kdedge.models.run_folder import BEST
from kdedge_export.torch_export import save_model
from kdedge_runtime import Model


@pytest.fixture
def run(exported_run: Path, tmp_path: Path) -> Path:
    """Copy of the exported run with the fp32 file only, as copied from another machine."""
    moved = tmp_path / "moved"
    shutil.copytree(exported_run, moved, ignore=shutil.ignore_patterns("model.int8.onnx"))
    return moved


@pytest.fixture
def named_file(exported_run: Path, tmp_path: Path) -> Path:
    """The same model exported by name with a weights file, without a run."""
    state = load_file(exported_run / BEST)
    weights = tmp_path / "weights.safetensors"
    save_file({name.removeprefix("model."): value for name, value in state.items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    origin = {"source": "small:resnet8", "weights": weights.name, "weights_sha256": digest}
    metadata = Model.load(exported_run / "model.onnx").metadata
    path = tmp_path / "named.onnx"
    save_model(graph_of(exported_run / "model.onnx"), replace(metadata, lineage={"student": origin}), path)
    return path
