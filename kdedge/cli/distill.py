"""The `kdedge distill` command."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import (
    DATA_HELP,
    BatchSize,
    Classes,
    Compile,
    Device,
    Epochs,
    Flip,
    Freeze,
    GroupBy,
    LearningRate,
    LeaveOut,
    Out,
    OutputStride,
    Pretrained,
    Prompts,
    RecipeOption,
    Resume,
    SamplesPerClass,
    SchemaFile,
    SeedOption,
    Size,
    Target,
    TrustCode,
    Weights,
    Window,
)
from kdedge.losses import LOSS_TERMS

__all__ = ["distill"]


class Start(StrEnum):
    """Sources of a student's initial weights."""

    TEACHER = "teacher"


class Task(StrEnum):
    """Tasks of a student other than that of the data."""

    EMBEDDING = "embedding"
    REGRESSION = "regression"


def _seconds(text: str) -> float:
    """Parse a duration with a unit into seconds."""
    import argparse

    from kdedge_runtime.cli.command import duration_s

    try:
        return duration_s(text)
    except argparse.ArgumentTypeError as error:
        raise typer.BadParameter(str(error)) from error


def distill(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help=f"{DATA_HELP} Or samples without classes, in a folder or a table.")
    ],
    teacher: Annotated[
        list[str],
        typer.Option(help="Run folder, .onnx file, or model name. Repeat for an ensemble."),
    ],
    student: Annotated[str, typer.Option(help="Student architecture, such as resnet10w16 or mobilenet_v3_small.")],
    task: Annotated[
        Task | None,
        typer.Option(
            help="embedding: train an encoder for classes enrolled later; regression: predict a numeric target. "
            "[default: from the data]"
        ),
    ] = None,
    unlabeled: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="Unlabeled samples, learned from the teacher alone: a folder, a quoted pattern, WebDataset shards, a "
            "video, a table, or the folder of kdedge run --record. May be repeated.",
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="TIME", parser=_seconds, help="Interval between frames of unlabeled videos. [default: 1s]"
        ),
    ] = None,
    out: Out = Path("runs/student"),
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"Weighted sum of loss terms ({', '.join(LOSS_TERMS.built_in)}), such as ce:0.1,kd:0.9,mapall:20. "
            "[default: from the recipe]"
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.1, help="Softmax temperature for the distillation loss. [default: 4]")
    ] = None,
    teacher_weights: Annotated[
        list[str] | None,
        typer.Option(help="Weights file of a teacher given by model name. [default: published weights]"),
    ] = None,
    classes: Classes = None,
    prompt: Prompts = None,
    cache_teacher: Annotated[
        int | None,
        typer.Option(
            metavar="VIEWS",
            min=1,
            help="Number of fixed augmented views per sample. Teacher outputs are computed once and cached next to the "
            "run folder. [default: no cache]",
        ),
    ] = None,
    init: Annotated[
        Start | None,
        typer.Option(
            help="teacher: copy the teacher's weights that fit the student. [default: published or random weights]"
        ),
    ] = None,
    weights: Weights = None,
    pretrained: Pretrained = None,
    size: Size = None,
    output_stride: OutputStride = None,
    freeze: Freeze = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    recipe: RecipeOption = None,
    flip: Flip = None,
    group_by: GroupBy = None,
    window: Window = None,
    target: Target = None,
    schema: SchemaFile = None,
    samples_per_class: SamplesPerClass = None,
    leave_out: LeaveOut = None,
    seed: SeedOption = None,
    device: Device = "auto",
    compile: Compile = False,
    resume: Resume = False,
    trust_code: TrustCode = None,
) -> None:
    """Distill a student from one or more teachers. Its loss can match predictions, features and saliency maps."""
    from kdedge.cli.training_checks import check_training_options, next_export
    from kdedge.data.dataset_options import DatasetOptions

    of_teachers = tuple(teacher_weights or ())
    check_training_options(
        data,
        student,
        out,
        weights=weights,
        resume=resume,
        options=DatasetOptions(
            group_by,
            window,
            target,
            None if schema is None else str(schema),
            "regression" if task is Task.REGRESSION else None,
        ),
        teachers=teacher,
        teacher_weights=of_teachers,
    )
    import kdedge
    from kdedge.cli.training_screen import train_with_progress

    train_with_progress(
        lambda screen: kdedge.distill(
            data,
            teacher,
            student,
            task=None if task is None else task.value,
            unlabeled=unlabeled or (),
            every_s=every,
            output=out,
            teacher_weights=of_teachers,
            classes=() if classes is None else classes.split(","),
            prompts=prompt or (),
            loss=loss,
            temperature=temperature,
            cache_teacher=cache_teacher,
            init="teacher" if init is Start.TEACHER else None,
            weights=weights,
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
            schema=schema,
            samples_per_class=samples_per_class,
            leave_out=leave_out or (),
            seed=seed,
            device=device,
            compile=compile,
            resume=resume,
            callback=screen,
        ),
        out,
        following=lambda _: next_export(out),
    )
