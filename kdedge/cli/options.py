"""Options shared by several commands."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BatchSize",
    "Classes",
    "Compile",
    "DataOption",
    "Device",
    "Epochs",
    "Flip",
    "Freeze",
    "GroupBy",
    "SamplesPerClass",
    "LearningRate",
    "LeaveOut",
    "Out",
    "OutputStride",
    "Pretrained",
    "Prompts",
    "RecipeOption",
    "Resume",
    "SchemaFile",
    "SeedOption",
    "Size",
    "Target",
    "TrustCode",
    "Weights",
    "Window",
]

DataOption = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder with one subfolder of samples per class, such as images or recordings, or with train/, val/ and "
        "test/ splits of that form; a table; torchvision:NAME:ROOT; or WebDataset shards. kdedge distill also takes a "
        "folder without classes.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights file to start from (.safetensors or .pth). [default: published weights, if any]"),
]
Pretrained = Annotated[
    bool | None,
    typer.Option(
        "--pretrained/--no-pretrained",
        help="Start from the network's published weights of torchvision or timm, downloaded once; or from random "
        "ones. [default: published, if there are any and no others are given]",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Class names of a zero-shot model named clip:MODEL/TAG, separated by commas. [default: those of the data]",
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help="Sentence with {} for the class, for a zero-shot model. Repeat it to average. [default: a photo of a {}]",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=16,
        max=1024,
        help="Input size of images in pixels. [default: that of the teacher or the trained weights, else from the "
        "sizes of the images]",
    ),
]
OutputStride = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Input pixels per position of the saliency map, a power of two. [default: chosen for a map of at least "
        "7×7]",
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Number of epochs. [default: from dataset size and device]")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Batch size. [default: chosen from dataset size]")]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", min=1e-8, help="Peak learning rate. [default: from the recipe or the batch size]"),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="Recipe: default, few-images, fine-tune, labels, table, table-labels, or a .toml file. [default: "
        "fine-tune from trained weights; else labels to train; to distill few-images below 100 samples per class, else "
        "default; for tables table-labels to train and table to distill]"
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option(
        "--flip/--no-flip",
        help="Flip training images horizontally. Disable it if left and right differ in meaning. [default: from the "
        "recipe, else flip]",
    ),
]
Freeze = Annotated[
    bool | None,
    typer.Option("--freeze", help="Fit only the last layer, on the features of the trained layers below."),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX|COLUMN",
        help="Keep samples with the same match in their names in one split, such as the frames of a track. For a "
        "table, keep rows with the same value in this column. [default: every sample by itself]",
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        metavar="LENGTH",
        help="Length of the windows that recordings are cut into, a time such as 1s or a number of steps. [default: "
        "from the teacher or the data]",
    ),
]
Target = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of the ground truth in a table. [default: none]")
]
SchemaFile = Annotated[
    Path | None,
    typer.Option(
        "--schema", help="File with the kinds and categories of the columns of a table. [default: inferred and written]"
    ),
]
SamplesPerClass = Annotated[
    int | None,
    typer.Option(
        min=1, help="Train on this number of samples per class, chosen by a hash of their names or rows. [default: all]"
    ),
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        help="Train without this class; kdedge validate then reports whether its samples are recognized as unknown. "
        "May be repeated. [default: none]",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, max=2**31 - 1, help="Random seed for weights, sample order and augmentation. [default: 0]"),
]
Device = Annotated[str, typer.Option(help="Device to train on: auto, cpu, cuda or cuda:N.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the models and replay training steps as CUDA graphs (GPU only).")
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in --out exactly where it stopped.")]


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
        help="SHA-256 of a Python file that a run folder names as its model and that may be executed.",
    ),
]
