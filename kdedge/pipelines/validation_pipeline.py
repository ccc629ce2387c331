"""Validation of exported files in one call."""

import os
from pathlib import Path

from kdedge.pipelines.model_validation import Validation, validate_model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["validate"]


def validate(
    source: Location,
    *,
    data: Location | None = None,
    boxes: Location | None = None,
    weights: Location | None = None,
    model: str | None = None,
    device: str | None = None,
    quick: bool = False,
    unfamiliar: Location | None = None,
    background: Location | None = None,
    max_false_alarms: float | None = None,
    max_evidence_outside: float | None = None,
    output: Location | None = None,
    progress: ProgressCallback = no_progress,
) -> Validation:
    """Compare exported files with their PyTorch model, and write the report.

    Args:
        source: export result, run folder or model file.
        data: samples; None takes the run's validation split.
        boxes: object annotations: a table or a folder of masks; None takes `boxes.csv` of the data.
        weights: weights of a file from a named network; None searches next to the file and in the current folder.
        model: function `FILE.py:FUNCTION` that builds the network, if the file was exported from one.
        device: device profile with budgets; None takes the one that the quantized files were made for.
        quick: skip the faithfulness and robustness checks.
        unfamiliar: folder of samples that belong to none of the classes.
        background: recordings that contain no class, to count false alarms per hour.
        max_false_alarms: largest number of false alarms per hour; None checks none.
        max_evidence_outside: largest fraction of the positive evidence outside the annotated regions, in [0, 1]; None
        checks nothing.
        output: folder of the report; None takes `report/` in the run folder.
        progress: called during long steps.

    Returns:
        The report; `Validation.require_passed` raises unless every bound is confirmed.

    Raises:
        UsageError: there is nothing to validate.
        DataError: the samples do not fit the model.
    """
    return validate_model(
        source,
        data=None if data is None else os.fspath(data),
        boxes=None if boxes is None else Path(boxes),
        weights=None if weights is None else Path(weights),
        model=model,
        profile=None if device is None else load_profile(device),
        quick=quick,
        unfamiliar=None if unfamiliar is None else os.fspath(unfamiliar),
        background=None if background is None else os.fspath(background),
        max_false_alarms=max_false_alarms,
        max_evidence_outside=max_evidence_outside,
        output=None if output is None else Path(output),
        progress=progress,
    )
