"""Model files with golden frames, as `kdedge export` leaves them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from kdedge_runtime.golden import record
from kdedge_runtime.metadata import Metadata


def with_golden(path: Path, **changes: Any) -> Path:
    """Write golden frames into a model file; `changes` are made to them afterwards."""
    return with_metadata(path, golden=record(path) | changes)


def with_metadata(path: Path, **changes: Any) -> Path:
    """Change the metadata of a model file."""
    model = onnx.load(path)
    metadata = Metadata.from_props({entry.key: entry.value for entry in model.metadata_props})
    helper.set_model_props(model, replace(metadata, **changes).to_props())
    onnx.save(model, path)
    return path
