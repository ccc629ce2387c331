"""The `kdedge train` command."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdedge.cli.options import (
    BatchSize,
    Compile,
    DataOption,
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

if TYPE_CHECKING:
    from kdedge.data.dataset_options import DatasetOptions
    from kdedge.models.run_folder import RunRecord

__all__ = ["train"]


class DataTask(StrEnum):
    """Tasks of data that allow several."""

    REGRESSION = "regression"


def train(
    data: DataOption,
    model: Annotated[
        str, typer.Option(help="Model architecture, such as resnet18, timm:convnext_atto or small:resnet56.")
    ],
    out: Out = Path("runs/teacher"),
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
    task: Annotated[
        DataTask | None,
        typer.Option(help="Predict a numeric target of a table as a value, not as classes. [default: from the data]"),
    ] = None,
    samples_per_class: SamplesPerClass = None,
    leave_out: LeaveOut = None,
    seed: SeedOption = None,
    device: Device = "auto",
    compile: Compile = False,
    resume: Resume = False,
    trust_code: TrustCode = None,
) -> None:
    """Train a teacher on labeled samples."""
    from kdedge.cli.training_checks import check_training_options
    from kdedge.data.dataset_options import DatasetOptions
    from kdedge.models.run_folder import is_run

    of_data = None if task is None else task.value
    options = DatasetOptions(group_by, window, target, None if schema is None else str(schema), of_data)
    check_training_options(data, model, out, weights=weights, resume=resume, options=options)
    is_resumed = resume and is_run(out)
    import kdedge
    from kdedge.cli.schema_table import schema_table
    from kdedge.cli.training_screen import train_with_progress

    train_with_progress(
        lambda screen: kdedge.train(
            data,
            model,
            output=out,
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
            task=None if task is None else "regression",
            samples_per_class=samples_per_class,
            leave_out=leave_out or (),
            seed=seed,
            device=device,
            compile=compile,
            resume=resume,
            callback=screen,
        ),
        out,
        following=lambda record: _following(record, data, out, flip, samples_per_class, options),
        describe=None if is_resumed else lambda: schema_table(data, options),
    )


def _following(
    record: "RunRecord",
    data: str,
    out: Path,
    flip: bool | None,
    samples_per_class: int | None,
    options: "DatasetOptions",
) -> str:
    """Return the next command: distillation into a smaller student with the same data options, or export."""
    from kdedge.cli.training_checks import next_export
    from kdedge.models.run_folder import weights_file
    from kdedge.models.student_choice import smaller_student
    from kdedge.models.trees import is_tree_run
    from kdedge.models.weight_files import read_state

    read = [part for name, value in options.given.items() for part in (f"--{name.replace('_', '-')}", value)]
    if is_tree_run(record):
        command = ["kdedge", "distill", data, "--teacher", str(out), "--student", "mlp", *read]
        return f"Next: {shlex.join(command)}"
    student = smaller_student(read_state(weights_file(out)), len(record.labels), record.input)
    if student is None:
        name = record.model.name.removeprefix("small:")
        return f"No bundled student is smaller than {name}, so there is nothing to distill into.\n{next_export(out)}"
    mirrored = {None: [], True: ["--flip"], False: ["--no-flip"]}[flip]
    few = [] if samples_per_class is None else ["--samples-per-class", str(samples_per_class)]
    without = [part for name in record.left_out for part in ("--leave-out", name)]
    command = ["kdedge", "distill", data, "--teacher", str(out), "--student", student, *mirrored, *read, *few, *without]
    return f"Next: {shlex.join(command)}"
