"""`kdedge train`."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import (
    BatchSize,
    Compile,
    Data,
    Device,
    Epochs,
    Flip,
    ImagesPerClass,
    LearningRate,
    Out,
    OutputStride,
    Recipe,
    Resume,
    Seed,
    Size,
    Weights,
)

__all__ = ["train"]


def train(
    data: Data,
    model: Annotated[str, typer.Option(help="Network, such as resnet18, timm:convnext_atto or small:resnet56.")],
    out: Out = Path("runs/teacher"),
    weights: Weights = None,
    size: Size = None,
    output_stride: OutputStride = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    recipe: Recipe = None,
    flip: Flip = None,
    images_per_class: ImagesPerClass = None,
    seed: Seed = None,
    device: Device = "auto",
    compile: Compile = False,
    resume: Resume = False,
) -> None:
    """Train a teacher on a folder of labelled pictures."""
    from kdedge.distill.run import Request
    from kdedge.report.training import train_with_progress

    request = Request(
        data=data,
        model=model,
        # A run goes on from another working directory, too.
        weights=None if weights is None else str(Path(weights).resolve()),
        size=size,
        output_stride=output_stride,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        recipe=recipe,
        flip=flip,
        images_per_class=images_per_class,
        seed=seed,
    )
    following = ["kdedge", "distill", data, "--teacher", str(out), "--student", "resnet10w16"]
    train_with_progress(request, out, device, compiled=compile, resume=resume, following=following)
