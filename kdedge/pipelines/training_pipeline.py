"""Training and distillation in one call each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdedge.config.train_config import TrainConfig
from kdedge.models.run_folder import RunRecord, is_run
from kdedge.training.log_callback import LogCallback
from kdedge.training.run_callback import RunCallback
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.util.files import Location

__all__ = ["Run", "distill", "train"]


@dataclass(frozen=True, repr=False)
class Run:
    """Run folder of a trained model; accepted wherever a path is."""

    folder: Path
    record: RunRecord

    @property
    def is_complete(self) -> bool:
        """True if all epochs are done; False after SIGTERM, which leaves a checkpoint for `resume=True`."""
        return self.record.result is not None

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        """Return the folder, the model and the metrics of the best epoch."""
        best = {} if self.record.result is None else self.record.result["best"]
        figures = "".join(
            f", {name}={value:.4g}" for name, value in best.items() if name.startswith("val_") and value is not None
        )
        return f"Run({str(self.folder)!r}, {self.record.model.name}{figures})"


def train(
    data: Location,
    model: str,
    *,
    output: Location = "runs/teacher",
    weights: Location | None = None,
    pretrained: bool | None = None,
    size: int | None = None,
    output_stride: int | None = None,
    freeze: bool | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    recipe: str | None = None,
    flip: bool | None = None,
    group_by: str | None = None,
    window: str | None = None,
    target: str | None = None,
    schema: Location | None = None,
    task: Literal["regression"] | None = None,
    samples_per_class: int | None = None,
    leave_out: Sequence[str] = (),
    seed: int | None = None,
    device: str = "auto",
    compile: bool = False,
    resume: bool = False,
    callback: RunCallback | None = None,
) -> Run:
    """Train a classifier on labeled samples, for example a teacher.

    Args:
        data: folder with one folder of samples per class, or with `train/` and `val/` of such folders.
        model: network, such as `resnet18`, `timm:convnext_atto` or `small:resnet56`.
        output: run folder to write.
        weights: file of the initial weights; None starts from the network's published ones, if there are any.
        pretrained: True requires published weights, and False starts from random ones.
        size: input size in pixels; None chooses it from the samples.
        output_stride: pixels per map position; None chooses it from the input size.
        freeze: fit only the last layer, on the features of the trained layers below.
        epochs: number of epochs; None chooses it from the data and the device.
        batch_size: batch size; None chooses it from the number of samples.
        lr: peak learning rate; None scales it with the batch size.
        recipe: shipped recipe or TOML file; None takes `fine-tune` from trained weights, else `labels`.
        flip: flip images horizontally; None takes the recipe's setting.
        group_by: regular expression of sample names, or column of a table; see `DatasetOptions`.
        window: length of the windows of a recording, such as `1s`; None leaves it to the modality.
        target: column of the ground truth in a table.
        schema: file with the kinds and categories of the columns of a table; None infers them.
        task: `regression` for a numeric target of a table; None takes the task of the data.
        samples_per_class: training samples per class; None takes all.
        leave_out: classes of the dataset to train without.
        seed: random seed; None takes 0.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        compile: compile the models and replay training steps as CUDA graphs; GPU only.
        resume: continue an interrupted run exactly.
        callback: receives the plan, warnings and metrics; None logs them.

    Raises:
        UsageError: an option is out of range, or `output` holds a run.
        DataError: the samples cannot train a classifier.
    """
    request = TrainConfig(
        data=os.fspath(data),
        model=model,
        weights=_absolute(weights),
        pretrained=pretrained,
        size=size,
        output_stride=output_stride,
        freeze=freeze,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        recipe=recipe,
        flip=flip,
        group_by=group_by,
        window=window,
        target=target,
        schema=_absolute(schema),
        task=task,
        samples_per_class=samples_per_class,
        leave_out=tuple(leave_out),
        seed=seed,
    )
    return _run(request, Path(output), device, compile, resume, callback)


def distill(
    data: Location,
    teacher: Location | Sequence[Location],
    student: str,
    *,
    task: Literal["embedding", "regression"] | None = None,
    unlabeled: Location | Sequence[Location] = (),
    every_s: float | None = None,
    output: Location = "runs/student",
    teacher_weights: Sequence[Location] = (),
    classes: Sequence[str] = (),
    prompts: Sequence[str] = (),
    loss: str | None = None,
    temperature: float | None = None,
    cache_teacher: int | None = None,
    init: Literal["teacher"] | None = None,
    weights: Location | None = None,
    pretrained: bool | None = None,
    size: int | None = None,
    output_stride: int | None = None,
    freeze: bool | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    recipe: str | None = None,
    flip: bool | None = None,
    group_by: str | None = None,
    window: str | None = None,
    target: str | None = None,
    schema: Location | None = None,
    samples_per_class: int | None = None,
    leave_out: Sequence[str] = (),
    seed: int | None = None,
    device: str = "auto",
    compile: bool = False,
    resume: bool = False,
    callback: RunCallback | None = None,
) -> Run:
    """Distill a student from one teacher or several: soft labels, hard labels and saliency maps.

    Args:
        data: labeled samples, as for `train`; or a folder of samples without class folders, whose classes are those of
            the teacher.
        teacher: run, run folder, `.onnx` file, or network with published weights or `teacher_weights`; several form
            an ensemble.
        student: network, such as `resnet10w16` or `mobilenet_v3_small`.
        task: `embedding` for a student that recognizes enrolled classes, `regression` for a numeric target of a table;
            None takes the task of the data.
        unlabeled: unlabeled samples that the student learns from the teacher alone: folders, patterns, WebDataset
            shards or videos.
        every_s: interval between unlabeled video frames in seconds; None takes 1.
        output: run folder to write.
        teacher_weights: weights of the teachers that are names of networks, in their order. The others use
            published weights.
        classes: class names of a zero-shot teacher such as `clip:ViT-B-32/laion2b_s34b_b79k`, in the order of the
            data's classes; empty takes the names of the data.
        prompts: sentences with `{}` for the class, whose embeddings are averaged; empty takes `a photo of a {}`.
        loss: weighted sum of loss terms, such as `ce:0.1,kd:0.9,mapall:20`; None takes the recipe's.
        temperature: softmax temperature of the distillation loss; None takes the recipe's.
        cache_teacher: number of augmented views per sample whose teacher outputs are cached; None computes all online.
        init: `teacher` initializes the student with a selection of the teacher's weights.
        weights: file of the student's initial weights; None starts from its published ones, if there are any and
            `init` is None.
        pretrained: True requires published weights of the student, and False starts from random ones.
        size: input size in pixels; None chooses it from the samples.
        output_stride: pixels per map position; None chooses it from the input size.
        freeze: fit only the last layer, on the features of the trained layers below.
        epochs: number of epochs; None chooses it from the data and the device.
        batch_size: batch size; None chooses it from the number of samples.
        lr: peak learning rate; None scales it with the batch size.
        recipe: shipped recipe or TOML file; None takes `fine-tune` from trained weights, else chooses by the number of
            samples per class.
        flip: flip images horizontally; None takes the recipe's setting.
        group_by: regular expression of sample names, or column of a table; see `DatasetOptions`.
        window: length of the windows of a recording, such as `1s`; None leaves it to the modality.
        target: column of the ground truth in a table.
        schema: file with the kinds and categories of the columns of a table; None infers them.
        samples_per_class: training samples per class; None takes all.
        leave_out: classes of the dataset to train without.
        seed: random seed; None takes 0.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        compile: compile the models and replay training steps as CUDA graphs; GPU only.
        resume: continue an interrupted run exactly.
        callback: receives the plan, warnings and metrics; None logs them.

    Raises:
        UsageError: an option is out of range, a teacher is unusable, or `output` holds a run.
        DataError: the samples cannot train a classifier, or do not fit the teacher's classes.
    """
    more = [unlabeled] if isinstance(unlabeled, str | os.PathLike) else unlabeled
    teachers = [teacher] if isinstance(teacher, str | os.PathLike) else teacher
    request = TrainConfig(
        data=os.fspath(data),
        model=student,
        task=task,
        teacher=tuple(os.fspath(one) for one in teachers),
        teacher_weights=tuple(os.fspath(one) for one in teacher_weights),
        unlabeled=tuple(os.fspath(one) for one in more),
        every_s=every_s,
        classes=tuple(classes),
        prompts=tuple(prompts),
        cache_teacher=cache_teacher,
        init=init,
        weights=_absolute(weights),
        pretrained=pretrained,
        size=size,
        output_stride=output_stride,
        freeze=freeze,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        loss=loss,
        temperature=temperature,
        recipe=recipe,
        flip=flip,
        group_by=group_by,
        window=window,
        target=target,
        schema=_absolute(schema),
        samples_per_class=samples_per_class,
        leave_out=tuple(leave_out),
        seed=seed,
    )
    return _run(request, Path(output), device, compile, resume, callback)


def _absolute(file: Location | None) -> str | None:
    """Return an absolute path, so that a run can be resumed from another folder."""
    return None if file is None else str(Path(file).resolve())


def _run(
    request: TrainConfig, output: Path, device: str, compiled: bool, resume: bool, callback: RunCallback | None
) -> Run:
    # A run killed before its record was written starts over.
    begin = continue_run if resume and is_run(output) else start_run
    return Run(output, begin(request, output, callback or LogCallback(), device, compiled=compiled))
