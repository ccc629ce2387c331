"""`kdedge distill`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import (
    BatchSize,
    Data,
    Device,
    Epochs,
    Flip,
    ImagesPerClass,
    LearningRate,
    Out,
    OutputStride,
    Resume,
    Seed,
    Size,
    Weights,
)

__all__ = ["distill"]


def distill(
    data: Data,
    teacher: Annotated[str, typer.Option(help="Run folder, or a model's name with --teacher-weights.")],
    student: Annotated[str, typer.Option(help="Network, such as resnet10w16 or mobilenet_v3_small.")],
    out: Out = Path("runs/student"),
    loss: Annotated[
        str | None,
        typer.Option(help="Weighted sum of ce, kd, map, mapall. [default: ce:0.1,kd:0.9,mapall:20]"),
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.1, help="Of the soft labels. [default: 4]")] = None,
    teacher_weights: Annotated[str | None, typer.Option(help="Weights of a teacher that is not a run.")] = None,
    weights: Weights = None,
    size: Size = None,
    output_stride: OutputStride = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    flip: Flip = None,
    images_per_class: ImagesPerClass = None,
    seed: Seed = None,
    device: Device = "auto",
    resume: Resume = False,
) -> None:
    """Distill a student that answers like its teacher and looks where it looks."""
    from kdedge.distill.run import Request
    from kdedge.report.training import train_with_progress

    request = Request(
        data=data,
        model=student,
        teacher=teacher,
        teacher_weights=teacher_weights,
        weights=weights,
        size=size,
        output_stride=output_stride,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        loss=loss,
        temperature=temperature,
        flip=flip,
        images_per_class=images_per_class,
        seed=seed,
    )
    train_with_progress(request, out, device, resume=resume)
    typer.echo(f"\nNext: {shlex.join(['kdedge', 'export', str(out), '--quantize'])}", err=True)
