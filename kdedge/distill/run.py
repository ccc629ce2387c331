"""From what the user asked for to a finished run folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import torch

from kdedge.data import Dataset, ImageFolder, load, scan, subset, typical_size
from kdedge.data.decode import Progress
from kdedge.distill.compute import Compute, choose_compute
from kdedge.distill.describe import describe
from kdedge.distill.engine import Observer, Trainer
from kdedge.distill.losses import MAP_TERMS, SOFTENED_TERMS, TAUGHT_TERMS
from kdedge.distill.plan import (
    FEW_EPOCHS,
    check_map_size,
    choose_epochs,
    choose_size,
    requested_stride_factor,
    stride_factor,
)
from kdedge.distill.recipe import Recipe
from kdedge.distill.request import Request, recipe_for
from kdedge.distill.watched import Watched
from kdedge.models import (
    ModelSpec,
    build,
    canonical_name,
    head_tensors,
    load_state,
    output_stride,
    pretrained_input,
    read_state,
)
from kdedge.models.run_folder import LAST, RunRecord, is_run, read_run, write_run
from kdedge.models.trained import TrainedModel, load_trained
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.metadata import ImageInput

__all__ = ["Audience", "Request", "continue_run", "start_run"]

ABOUT_CHANCE = 1.5
"""A teacher with fewer right answers than this many times chance may have its classes in another order."""


class Audience(Observer, Protocol):
    """Who is told what was decided and how it goes."""

    def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int) -> None:
        """Before training: what was decided, as (name, value and reason), the loss terms and the length."""

    def on_warning(self, warning: str) -> None:
        """What the user should know, such as what is wrong with the files."""

    def on_decode(self, done: int, total: int) -> None:
        """While pictures are read."""


def start_run(request: Request, out: Path, audience: Audience, device: str = "auto") -> RunRecord:
    """Train a model from the beginning.

    Raises:
        UsageError: the request cannot be met, or `out` holds a run already.
        DataError: the pictures cannot train a classifier.
    """
    if is_run(out):
        raise UsageError(
            f"{out} holds a run already. Type --resume to continue it, or choose another folder with --out."
        )
    compute = choose_compute(device)
    on_cpu = compute.device.type == "cpu"
    folder = _pictures(request.data, request.images_per_class)
    teacher = _teacher(request, folder)
    name = canonical_name(request.model)
    natural = pretrained_input(name)
    size = request.size or _size(teacher, folder, on_cpu=on_cpu)
    spec_input = ImageInput(size, size, natural.mean, natural.std, interpolation=natural.interpolation)
    plain = ModelSpec(name, len(folder.labels), fresh_stem=request.weights is None)
    own_stride = output_stride(build(plain, size), size)
    if request.output_stride is None:
        factor = stride_factor(size, own_stride)
    else:
        factor = requested_stride_factor(request.output_stride, own_stride)
    spec = replace(plain, stride_factor=factor)
    recipe = recipe_for(request, len(folder.train), epochs=1)
    data = _decode(folder, spec_input, audience)
    trainer = _trainer(spec, spec_input, teacher, data, recipe, compute, request.weights)
    check_map_size(trainer.student.map_size)
    if request.temperature is not None and SOFTENED_TERMS.isdisjoint(recipe.loss):
        raise UsageError(
            f"--temperature softens the terms {' and '.join(sorted(SOFTENED_TERMS))}; the loss has neither."
        )
    if trainer.teacher_top1 is not None and trainer.teacher_top1 < ABOUT_CHANCE / len(folder.labels):
        audience.on_warning(
            f"The teacher is right on {100 * trainer.teacher_top1:.1f} % of the validation images, about chance. "
            f"Are its classes in the order of the folders ({', '.join(folder.labels[:3])}, …)?"
        )
    if request.epochs is None:
        seconds = trainer.seconds_per_epoch() if on_cpu else 0.0
        epochs = choose_epochs(trainer.steps_per_epoch, seconds, on_cpu=on_cpu)
        if epochs < FEW_EPOCHS:
            audience.on_warning(
                f"Only {epochs} epochs fit a quarter of an hour on this CPU, too few to learn well. Better: a GPU, a "
                f"smaller network such as small:resnet8, or --epochs 30 (about {30 * seconds / 60:.0f} minutes)."
            )
    else:
        epochs = request.epochs
    trainer.recipe = recipe = recipe_for(request, len(folder.train), epochs)
    plan = describe(request, trainer, teacher, spec, spec_input, recipe, data)
    audience.on_plan(plan, list(recipe.loss), recipe.epochs)
    record = RunRecord(
        kind=request.kind,
        model=spec,
        input=spec_input,
        labels=folder.labels,
        data={
            "root": str(folder.root.resolve()),
            "fingerprint": folder.fingerprint,
            "split": folder.split,
            "train": len(data.train),
            "val": len(data.val),
            "images_per_class": request.images_per_class,
        },
        recipe=asdict(recipe),
        request=request.given,
        device=compute.name,
        teacher=None if teacher is None else _teacher_record(request, teacher),
    )
    write_run(out, record)
    return _finish(trainer, record, out, audience, resume=False)


def continue_run(request: Request, out: Path, audience: Audience, device: str = "auto") -> RunRecord:
    """Go on with a run exactly where its last complete epoch ended; one that is complete stays as it is.

    Args:
        request: as for `start_run`; options that are given must be those that the run was started with.
        out: the run folder.
        audience: who is told.
        device: see `choose_compute`.

    Raises:
        UsageError: there is no run, it was started with other options, or its teacher has changed.
        DataError: the pictures are not those that the run was started with.
    """
    record = read_run(out)
    if record.kind != request.kind:
        raise UsageError(f"{out} was made by kdedge {record.kind}. Continue it with kdedge {record.kind} --resume.")
    for option, value in request.given.items():
        if record.request.get(option) != value:
            shown = option.replace("_", "-")
            raise UsageError(
                f"{out} was started with {shown} {record.request.get(option, 'left to its default')!r}, not {value!r}. "
                "Resume with the same options, or start another run with another --out."
            )
    recipe = Recipe(**record.recipe)
    if record.result is not None:
        audience.on_plan([("resume", f"{out} is complete: all {recipe.epochs} epochs are done")], [], recipe.epochs)
        return record
    folder = _pictures(record.data["root"], record.data["images_per_class"])
    if folder.fingerprint != record.data["fingerprint"]:
        raise DataError(
            f"The pictures in {folder.root} have changed since {out} was started, so it cannot continue exactly. "
            "Start another run with another --out."
        )
    teacher = None
    if record.teacher is not None:
        weights = record.teacher["weights"]
        teacher = load_trained(record.teacher["source"], weights=None if weights is None else Path(weights))
        if teacher.origin["weights_sha256"] != record.teacher["weights_sha256"]:
            raise UsageError(
                f"The teacher {record.teacher['source']} has changed since {out} was started, so it cannot continue "
                "exactly. Start another run with another --out."
            )
    data = _decode(folder, record.input, audience)
    first_weights = None if (out / LAST).is_file() else record.request.get("weights")
    trainer = _trainer(record.model, record.input, teacher, data, recipe, choose_compute(device), first_weights)
    plan = [("resume", f"{out}, {recipe.epochs} epochs in all"), ("device", trainer.compute.name)]
    audience.on_plan(plan, list(recipe.loss), recipe.epochs)
    return _finish(trainer, record, out, audience, resume=True)


def _finish(trainer: Trainer, record: RunRecord, out: Path, audience: Audience, *, resume: bool) -> RunRecord:
    record = record.finished(trainer.run(out, audience, resume=resume))
    write_run(out, record)
    return record


def _pictures(data: str, images_per_class: int | None) -> ImageFolder:
    folder = scan(data)
    return folder if images_per_class is None else subset(folder, images_per_class)


def _teacher(request: Request, folder: ImageFolder) -> TrainedModel | None:
    if request.teacher is None:
        return None
    weights = None if request.teacher_weights is None else Path(request.teacher_weights)
    teacher = load_trained(request.teacher, weights=weights)
    if weights is None and not is_run(Path(request.teacher)):
        raise UsageError(
            f"The teacher {request.teacher} has random weights. Give it trained ones: --teacher-weights FILE."
        )
    if len(teacher.labels) != len(folder.labels):
        raise UsageError(
            f"The teacher {request.teacher} knows {len(teacher.labels)} classes, but {folder.root} has "
            f"{len(folder.labels)}. Expected a teacher trained on these classes: kdedge train {folder.root}."
        )
    if is_run(Path(request.teacher)) and teacher.labels != folder.labels:
        odd = sorted(set(teacher.labels) ^ set(folder.labels))
        raise UsageError(
            f"The teacher {request.teacher} was trained on other classes than those in {folder.root} "
            f"({', '.join(odd[:6])} are not in both). Expected a teacher trained on these classes."
        )
    return teacher


def _teacher_record(request: Request, teacher: TrainedModel) -> dict[str, str | None]:
    """Where to find the teacher again, from any folder, and how to know that it is the same."""
    source, weights = str(request.teacher), request.teacher_weights
    return {
        "source": str(Path(source).resolve()) if is_run(Path(source)) else source,
        "weights": None if weights is None else str(Path(weights).resolve()),
        "weights_sha256": teacher.origin["weights_sha256"],
    }


def _size(teacher: TrainedModel | None, folder: ImageFolder, *, on_cpu: bool) -> int:
    if teacher is not None:
        return teacher.input.height
    return choose_size(typical_size(folder.train), on_cpu=on_cpu)


def _decode(folder: ImageFolder, spec: ImageInput, audience: Audience) -> Dataset:
    progress: Progress = audience.on_decode
    data = load(folder, spec, progress=progress)
    if data.problems:
        audience.on_warning(str(data.problems))
    return data


def _trainer(
    spec: ModelSpec,
    spec_input: ImageInput,
    teacher: TrainedModel | None,
    data: Dataset,
    recipe: Recipe,
    compute: Compute,
    weights: str | None,
) -> Trainer:
    torch.manual_seed(recipe.seed)  # first weights are the same whether the run starts, or starts again
    model = build(spec, spec_input.height)
    if weights is not None:
        load_state(model, read_state(Path(weights)), weights, replaced=head_tensors(spec.name, spec_input.height))
    student = Watched(model, spec_input, compute)
    watched_teacher = None if teacher is None else Watched(teacher.model, teacher.input, compute)
    wants_maps = [name for name in recipe.loss if name in MAP_TERMS]
    if watched_teacher is None and not TAUGHT_TERMS.isdisjoint(recipe.loss):
        raise UsageError(f"The loss {','.join(recipe.loss)} needs a teacher. Use kdedge distill, or --loss ce.")
    for role, watched in (("student", student), ("teacher", watched_teacher)):
        if wants_maps and watched is not None and watched.unexplained is not None:
            raise UsageError(
                f"The loss term {', '.join(wants_maps)} compares saliency maps, but the {role} has none: "
                f"{watched.unexplained} To distill without maps: --loss ce:0.1,kd:0.9."
            )
    return Trainer(student, watched_teacher, data, recipe, compute)
