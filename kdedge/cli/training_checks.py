"""Argument checks of `kdedge train` and `kdedge distill` before the slow torch import, and their next command."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from kdedge.cli.console import stderr_console
from kdedge.data.dataset_options import NO_OPTIONS, DatasetOptions
from kdedge.data.readers.reader_choice import check_data_source, index_dataset
from kdedge.modalities import modality_of_dataset
from kdedge.models.artifacts import Artifacts
from kdedge.models.custom_path import is_factory
from kdedge.models.model_source import check_weights
from kdedge.models.run_folder import check_folder_free, is_run, read_run

__all__ = ["next_export", "check_training_options"]


def check_training_options(
    data: str,
    model: str,
    out: Path,
    *,
    weights: str | None,
    resume: bool,
    options: DatasetOptions = NO_OPTIONS,
    teachers: Sequence[str] = (),
    teacher_weights: Sequence[str] = (),
) -> None:
    """Validate the arguments of a training command.

    Args:
        data: dataset location.
        model: name of the model to train.
        out: run folder.
        weights: file of the initial weights.
        resume: True to resume an existing run, which has recorded all other options.
        options: options of reading the dataset.
        teachers: run folders, `.onnx` files or model names.
        teacher_weights: weights files of teachers given by name.

    Raises:
        UsageError: A model, run or file does not exist, or `out` is not free.
        DataError: the dataset does not exist. Also raised for an unusable dataset if `out` is not free.
    """
    if resume and is_run(out):
        read_run(out)
        return
    if resume:
        stderr_console().print(f"{out} has no run to resume: a new one starts", soft_wrap=True)
    check_data_source(data)
    for file in filter(None, (weights, *teacher_weights)):
        check_weights(Path(file))
    if is_run(out):
        index_dataset(data, options, unlabeled_ok=bool(teachers))
    modality = modality_of_dataset(data)
    if is_factory(model):
        modality.check_model(model)
    opened = [Artifacts.open(teacher) for teacher in teachers]
    for artifacts in sorted(opened, key=lambda one: one.run is None):  # names last: they import torch
        if artifacts.run is not None or not artifacts.source.endswith(".onnx"):
            artifacts.check_trainable()
    if not is_factory(model):
        modality.check_model(model)
    check_folder_free(out)  # last: another --out would not fix the errors above


def next_export(run: Path) -> str:
    """Return the export command as the next step for a trained student."""
    return f"Next: {shlex.join(['kdedge', 'export', str(run), '--quantize'])}"
