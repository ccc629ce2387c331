"""Locate model files from a run folder or path. This module does not import torch, which takes seconds."""

from pathlib import Path

from kdedge.models.run_folder import is_run
from kdedge_runtime.errors import UsageError

__all__ = ["fp32_file"]


def fp32_file(source: str) -> Path:
    """Return the fp32 file of a run, or the file itself.

    Raises:
        UsageError: Neither exists.
    """
    path = Path(source) / "model.onnx" if is_run(Path(source)) else Path(source)
    if path.is_file():
        return path
    if is_run(Path(source)):
        raise UsageError(f"{source} has no model file yet. Export it first: kdedge export {source} --quantize")
    if path.suffix == ".onnx":
        raise UsageError(f"There is no model file {path}. Export it first: kdedge export MODEL -o {path}")
    raise UsageError(
        f"There is no run folder {source}. Create it first: kdedge distill DATA --teacher TEACHER --student STUDENT "
        f"--out {source}"
    )
