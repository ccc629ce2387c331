"""Validation of the toy classifier, intact or with changed arguments."""

from dataclasses import fields
from pathlib import Path

import numpy as np
from validate_toys import LABELS, Toy, model_file, pictures

from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.validation import Deployment, Models, SampleGallery, ValidationReport, ValidationSet, validate

IMAGES = pictures(400)
STUDENT = Toy()


def run(folder: Path, **changes: object) -> tuple[ValidationReport, SampleGallery]:
    """Validate an intact toy model, or with changed arguments; `int8` is the quantized file."""
    settings: dict[str, object] = {
        "student": STUDENT,
        "fp32": model_file(STUDENT, folder / "model.onnx"),
        "int8": model_file(STUDENT, folder / "model.int8.onnx", noise=0.005),
        "samples": IMAGES,
        "targets": right_predictions(),
        "labels": LABELS,
    } | changes
    int8 = settings.pop("int8")
    settings["converted"] = {} if int8 is None else {"int8": int8}

    def taken(kind: type) -> object:
        return kind(**{field.name: settings.pop(field.name) for field in fields(kind) if field.name in settings})

    return validate(taken(Models), taken(ValidationSet), taken(Deployment), **settings)  # type: ignore[arg-type]


def right_predictions() -> np.ndarray:
    predictions = predict(STUDENT, IMAGES).logits.argmax(axis=1)
    predictions[::5] = (predictions[::5] + 1) % len(LABELS)
    return predictions


def failed(report: ValidationReport) -> set[str]:
    return {check.key for check in report.checks if check.passed is False}
