"""Options shared by several commands."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.config.recipe_names import shipped_recipes

__all__ = [
    "DATA_HELP",
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

DATA_HELP = (
    "Folder with one subfolder of samples per class, such as images or recordings, or with train/, val/ and test/ "
    "splits of that form; a table; torchvision:NAME:ROOT; or WebDataset shards."
)
DataOption = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights file to start from (.safetensors or .pth). [default: published weights, if any]"),
]
Pretrained = Annotated[
    bool | None,
    typer.Option(
        "--pretrained/--no-pretrained",
        help="Start from the published weights of torchvision or timm, downloaded once; or from random ones. "
        "[default: published, if available and no others are given]",
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
        help="Sentence with {} for the class, for a zero-shot model. Repeat to average. [default: a photo of a {}]",
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
        help=f"Recipe: {', '.join(shipped_recipes())}, or a .toml file. [default: chosen from data and weights; see "
        "the printed plan]"
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
        help="Regular expression; samples whose names match equally stay in one split. For a table: a column; rows "
        "with equal values stay in one split. [default: no groups]",
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        metavar="LENGTH",
        help="Window length of recordings: a time such as 1s, or a number of steps. [default: from the teacher or the "
        "data]",
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
        help="Train without this class; kdedge validate then measures how many of its samples are detected as "
        "unknown. May be repeated. [default: none]",
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
        help="Execute the model's Python file if its SHA-256 starts with this value (12 digits or more).",
    ),
]
