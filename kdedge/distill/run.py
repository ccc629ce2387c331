"""From what the user asked for to a finished run folder."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from kdedge.data import Dataset, ImageFolder, load, scan, subset, typical_size
from kdedge.data.decode import Progress
from kdedge.distill.compute import Compute, choose_compute
from kdedge.distill.engine import Observer, Trainer
from kdedge.distill.losses import MAP_TERMS, TAUGHT_TERMS
from kdedge.distill.plan import FEW_EPOCHS, check_map_size, choose_batch_size, choose_epochs, choose_size, stride_factor
from kdedge.distill.recipe import DISTILL_LOSS, TRAIN_LOSS, Recipe, parse_loss
from kdedge.distill.watched import Watched
from kdedge.models import ModelSpec, build, canonical_name, load_state, output_stride, pretrained_input, read_state
from kdedge.models.run_folder import RunRecord, is_run, read_run, write_run
from kdedge.models.trained import TrainedModel, load_trained
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.metadata import ImageInput

__all__ = ["Audience", "Request", "continue_run", "start_run"]


@dataclass(frozen=True)
class Request:
    """What the user asked for; None leaves the choice to the data and the device."""

    data: str
    model: str
    """The network to train: the teacher in `kdedge train`, the student in `kdedge distill`."""
    teacher: str | None = None
    teacher_weights: str | None = None
    weights: str | None = None
    size: int | None = None
    output_stride: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    loss: str | None = None
    temperature: float | None = None
    flip: bool | None = None
    images_per_class: int | None = None
    seed: int | None = None


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
    torch.manual_seed(request.seed or 0)
    plain = ModelSpec(name, len(folder.labels), fresh_stem=request.weights is None)
    own_stride = output_stride(build(plain, size), size)
    factor = stride_factor(size, own_stride)
    if request.output_stride is not None:
        factor = max(1, own_stride // request.output_stride)
    spec = ModelSpec(name, len(folder.labels), factor, fresh_stem=request.weights is None)
    recipe = _recipe(request, len(folder.train), epochs=1)
    data = _decode(folder, spec_input, audience)
    trainer = _trainer(spec, spec_input, teacher, data, recipe, compute, request.weights)
    check_map_size(trainer.student.map_size)
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
    trainer.recipe = recipe = _recipe(request, len(folder.train), epochs)
    plan = _plan(request, trainer, teacher, spec, spec_input, recipe, data)
    audience.on_plan(plan, list(recipe.loss), recipe.epochs)
    record = RunRecord(
        kind="train" if teacher is None else "distill",
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
        request=_given(request),
        device=compute.name,
        teacher=None if teacher is None else {"source": request.teacher, "weights": request.teacher_weights},
    )
    write_run(out, record)
    return _finish(trainer, record, out, audience, resume=False)


def continue_run(request: Request, out: Path, audience: Audience, device: str = "auto") -> RunRecord:
    """Go on with a run exactly where its last complete epoch ended.

    Args:
        request: as for `start_run`; options that are given must be those that the run was started with.
        out: the run folder.
        audience: who is told.
        device: see `choose_compute`.

    Raises:
        UsageError: there is no run, or it was started with other options.
        DataError: the pictures are not those that the run was started with.
    """
    record = read_run(out)
    for option, value in _given(request).items():
        if record.request.get(option) != value:
            shown = option.replace("_", "-")
            raise UsageError(
                f"{out} was started with {shown} {record.request.get(option, 'left to its default')!r}, not {value!r}. "
                "Resume with the same options, or start another run with another --out."
            )
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
    data = _decode(folder, record.input, audience)
    recipe = Recipe(**record.recipe)
    torch.manual_seed(recipe.seed)
    trainer = _trainer(
        record.model, record.input, teacher, data, recipe, choose_compute(device), record.request.get("weights")
    )
    plan = [("resume", f"{out}, {recipe.epochs} epochs in all"), ("device", trainer.compute.name)]
    audience.on_plan(plan, list(recipe.loss), recipe.epochs)
    return _finish(trainer, record, out, audience, resume=True)


def _finish(trainer: Trainer, record: RunRecord, out: Path, audience: Audience, *, resume: bool) -> RunRecord:
    started = time.monotonic()
    result = trainer.run(out, audience, resume=resume)
    record = record.finished(result | {"seconds": round(time.monotonic() - started, 1)})
    write_run(out, record)
    return record


def _given(request: Request) -> dict[str, Any]:
    return {name: value for name, value in asdict(request).items() if value is not None}


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


def _recipe(request: Request, images: int, epochs: int) -> Recipe:
    chosen = Recipe(
        epochs=epochs,
        batch_size=min(request.batch_size or choose_batch_size(images), images),
        learning_rate=0.0,
        loss=parse_loss(request.loss) if request.loss else dict(DISTILL_LOSS if request.teacher else TRAIN_LOSS),
        seed=request.seed or 0,
    )
    # Trained weights are adapted gently; random ones take the literature's rate, scaled with the batch.
    rate = request.lr or (0.01 if request.weights else 0.1) * chosen.batch_size / 128
    optional = {"temperature": request.temperature, "flip": request.flip}
    changes = {name: value for name, value in optional.items() if value is not None}
    return Recipe(**asdict(chosen) | {"learning_rate": rate} | changes)


def _trainer(
    spec: ModelSpec,
    spec_input: ImageInput,
    teacher: TrainedModel | None,
    data: Dataset,
    recipe: Recipe,
    compute: Compute,
    weights: str | None,
) -> Trainer:
    model = build(spec, spec_input.height)
    if weights is not None:
        load_state(model, read_state(Path(weights)), weights, new_head=True)
    student = Watched(model, spec_input, compute)
    watched_teacher = None if teacher is None else Watched(teacher.model, teacher.input, compute)
    wants_maps = MAP_TERMS.intersection(recipe.loss)
    if watched_teacher is None and not TAUGHT_TERMS.isdisjoint(recipe.loss):
        raise UsageError(f"The loss {','.join(recipe.loss)} needs a teacher. Use kdedge distill, or --loss ce.")
    for role, watched in (("student", student), ("teacher", watched_teacher)):
        if wants_maps and watched is not None and watched.unexplained is not None:
            raise UsageError(
                f"The loss term {', '.join(wants_maps)} compares saliency maps, but the {role} has none: "
                f"{watched.unexplained} To distill without maps: --loss ce:0.1,kd:0.9."
            )
    return Trainer(student, watched_teacher, data, recipe, compute)


def _plan(
    request: Request,
    trainer: Trainer,
    teacher: TrainedModel | None,
    spec: ModelSpec,
    spec_input: ImageInput,
    recipe: Recipe,
    data: Dataset,
) -> list[tuple[str, str]]:
    """What was decided, for the user to read before the first step."""

    def said(option: Any, why: str) -> str:
        return "as asked" if option is not None else why

    parameters = sum(parameter.numel() for parameter in trainer.student.model.parameters())
    size, cells = spec_input.height, trainer.student.map_size
    lines = [
        ("images", f"{len(data.train):,} to train on, {len(data.val):,} to validate, {len(data.labels)} classes"),
        ("model", f"{spec.name}, {parameters / 1e6:.2f} M parameters"),
    ]
    if teacher is not None:
        ratio = teacher.parameters / parameters
        lines.append(
            ("teacher", f"{teacher.spec.name}, {teacher.parameters / 1e6:.2f} M parameters, {ratio:.1f} times as many")
        )
    why_size = "as the teacher's" if teacher is not None else "from the pictures and the device"
    lines.append(("input", f"{size} × {size} px ({said(request.size, why_size)})"))
    if cells is not None:
        stem = f"early strides removed, {spec.stride_factor} times finer" if spec.stride_factor > 1 else "stem as it is"
        lines.append(("map", f"{cells[0]} × {cells[1]} cells ({said(request.output_stride, stem)})"))
    loss = " + ".join(f"{weight:g}·{name}" for name, weight in recipe.loss.items())
    return [
        *lines,
        ("loss", f"{loss}" + (f", temperature {recipe.temperature:g}" if teacher is not None else "")),
        (
            "schedule",
            f"{recipe.epochs} epochs ({said(request.epochs, 'from the data and the device')}), "
            f"batches of {recipe.batch_size}, learning rate {recipe.learning_rate:g}",
        ),
        ("device", f"{trainer.compute.name}, {'bfloat16' if trainer.compute.bf16 else 'float32'}"),
    ]
