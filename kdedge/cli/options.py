"""Options that several verbs share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BatchSize",
    "Compile",
    "Data",
    "Device",
    "Epochs",
    "Flip",
    "ImagesPerClass",
    "LearningRate",
    "Out",
    "OutputStride",
    "Recipe",
    "Resume",
    "Seed",
    "Size",
    "TrustCode",
    "Weights",
]

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder with one folder of pictures a class, or train/, val/ and test/ of such; "
        "torchvision:NAME:ROOT; or WebDataset shards.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
Weights = Annotated[str | None, typer.Option(help="Trained weights to start from (.safetensors or .pth).")]
Size = Annotated[int | None, typer.Option(min=16, max=1024, help="Input side in px. [default: from the pictures]")]
OutputStride = Annotated[
    int | None,
    typer.Option(min=1, help="Px of input per cell of the map, a power of two. [default: for 7×7 cells or more]"),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the data. [default: from data and device]")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a step. [default: from the data]")]
LearningRate = Annotated[
    float | None, typer.Option("--lr", min=1e-8, help="Peak learning rate. [default: from the batch]")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="cifar, default, few-images, labels, tiny-imagenet, or a .toml file. [default: from the pictures]"
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Mirror training images; not where left and right differ. [default: flip]"),
]
ImagesPerClass = Annotated[int | None, typer.Option(min=1, help="Train on this many pictures of each class only.")]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of weights, order and augmentation. [default: 0]")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="On a GPU: compile the networks and replay steps as CUDA graphs.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out exactly where it stopped.")]


def _allow(digests: list[str] | None) -> tuple[str, ...]:
    from kdedge.models.code_trust import allow_content

    for digest in digests or ():
        allow_content(digest)
    return tuple(digests or ())


TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHA256",
        callback=_allow,
        help="Run the Python file with this hash where a run folder names it as its network.",
    ),
]
