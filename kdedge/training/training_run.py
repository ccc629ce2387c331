"""Training runs: from a request to a finished run folder."""

import signal
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from kdedge.config.defaults import check_map_size
from kdedge.config.train_config import TrainConfig, plan_training
from kdedge.config.training_recipe import TrainingRecipe
from kdedge.data import DatasetIndex, index_dataset, subset
from kdedge.models.code_trust import allow_typed
from kdedge.models.init_from_teacher import InitSummary
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import (
    BEST,
    LAST,
    METRICS,
    TEACHER_CACHE,
    RunRecord,
    check_folder_free,
    lock_run,
    read_run,
    write_run,
)
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.training.builder import build_student, build_trainer, cache_key
from kdedge.training.compute_device import ComputeDevice, choose_device
from kdedge.training.distributed import ProcessGroup, join_process_group
from kdedge.training.image_store import ImageStore, evaluation_images, training_images
from kdedge.training.interruption import stop_requests
from kdedge.training.plan_summary import summarize_plan
from kdedge.training.resolution import choose_network, draft_recipe, resolve_recipe
from kdedge.training.teachers.teacher_cache import TeacherCache
from kdedge.training.teachers.teacher_loading import (
    as_teacher,
    init_source,
    load_teachers,
    reload_teachers,
    teacher_record,
)
from kdedge.training.trainer import Trainer, TrainerCallback
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["RunCallback", "TrainConfig", "continue_run", "start_run"]

ABOUT_CHANCE = 1.5
"""Factor of chance accuracy below which a teacher's classes may be in another order."""


class RunCallback(TrainerCallback, Protocol):
    """Callbacks for a training run: the resolved plan, warnings and the progress of preparations."""

    def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int) -> None:
        """Called before training with the plan as (name, value with its reason), the loss terms and the epochs."""

    def on_warning(self, warning: str) -> None:
        """Called with a warning for the user, such as a report of unreadable files."""

    def on_progress(self, step: str, done: int, total: int, /) -> None:
        """Called while images are decoded and while the cache of teacher outputs is filled; a `ProgressCallback`."""


def start_run(
    request: TrainConfig, out: Path, callback: RunCallback, device: str = "auto", *, compiled: bool = False
) -> RunRecord:
    """Train a model from the beginning.

    Args:
        request: training options.
        out: run folder to write.
        callback: training callback.
        device: device name; see `choose_device`.
        compiled: True to compile; see `choose_device`.

    Returns:
        The record; its `result` is None if SIGTERM ended training before the last epoch.

    Raises:
        UsageError: the request cannot be fulfilled, or `out` already holds a run.
        DataError: the images cannot train a classifier, or the test images disappeared during training.
    """
    check_folder_free(out)
    _allow_own_code(request)
    compute = choose_device(device, compiled=compiled)
    group = join_process_group(compute.device)
    group.wait()  # another process of this run must not create the folder before all have checked it
    collection = _collection(request.data, request.images_per_class)
    teachers = load_teachers(request, collection)
    on_cpu = compute.device.type == "cpu"
    spec, spec_input = choose_network(request, teachers, collection, on_cpu=on_cpu)
    plan = plan_training(request, len(collection.train), len(collection.labels))
    session = _TrainingSession(collection, teachers, spec, spec_input, compute, group, out, callback)
    trainer, init_summary = session.trainer(draft_recipe(plan, request), request)
    check_map_size(trainer.train_step.student.map_size)
    session.warn_on_aspect_mismatch()
    session.warn_if_teacher_at_chance(trainer)
    trainer.recipe = recipe = resolve_recipe(trainer, plan, group, on_cpu=on_cpu, warn=callback.on_warning)
    lines = summarize_plan(request, plan, trainer, teachers, spec, recipe, init_summary)
    callback.on_plan(lines, list(recipe.loss), recipe.epochs)
    record = RunRecord(
        kind=request.kind,
        model=spec,
        input=spec_input,
        labels=collection.labels,
        data={
            "source": collection.source,
            "fingerprint": collection.fingerprint,
            "split": collection.split,
            "train": len(trainer.batches.images),
            "val": len(trainer.evaluator.val),
            "images_per_class": request.images_per_class,
        },
        recipe=asdict(recipe),
        request=request.given,
        device=compute.name,
        teacher=teacher_record(teachers),
    )
    with lock_run(out) if group.is_main else nullcontext():
        if group.is_main:
            check_folder_free(out)  # planning takes a while
            for left in (METRICS, BEST, LAST):  # left by a run whose record is gone: --resume would use its weights
                (out / left).unlink(missing_ok=True)
            write_run(out, record)
        return session.finish(trainer, record, resume=False)


def continue_run(
    request: TrainConfig, out: Path, callback: RunCallback, device: str = "auto", *, compiled: bool = False
) -> RunRecord:
    """Resume a run exactly where it stopped; a complete run is left unchanged.

    Args:
        request: as for `start_run`; explicit options must equal those of the run.
        out: run folder.
        callback: training callback.
        device: device name; see `choose_device`.
        compiled: True to compile; see `choose_device`.

    Raises:
        UsageError: there is no run, it was started with other options, or its teacher has changed.
        DataError: the images are not those that the run was started with.
    """
    record = read_run(out)
    _allow_own_code(request)
    _require_same_request(request, record, out)
    recipe = TrainingRecipe.from_record(record.recipe)
    if record.result is not None:
        callback.on_plan([("resume", f"{out} is complete: all {recipe.epochs} epochs are done")], [], recipe.epochs)
        return record
    collection = _collection(record.data["source"], record.data["images_per_class"])
    if collection.fingerprint != record.data["fingerprint"]:
        raise DataError(
            f"The images in {collection.source} have changed since {out} was started, so it cannot be resumed exactly. "
            "Start a new run with another --out."
        )
    compute = choose_device(device, compiled=compiled)
    teachers = reload_teachers(record.teacher, out)
    session = _TrainingSession(
        collection, teachers, record.model, record.input, compute, join_process_group(compute.device), out, callback
    )
    started = (out / LAST).is_file()
    trainer, _ = session.trainer(recipe, None if started else TrainConfig.from_record(record.request))
    counts = {"train": len(trainer.batches.images), "val": len(trainer.evaluator.val)}
    if any(record.data[side] != count for side, count in counts.items()):
        raise DataError(
            f"{out} was started with {record.data['train']:,} images for training and {record.data['val']:,} for "
            f"validation, but {counts['train']:,} and {counts['val']:,} are readable now, so it cannot be resumed "
            "exactly. Restore the files, or start a new run with another --out."
        )
    plan = [("resume", f"{out}, {recipe.epochs} epochs in total"), ("device", compute.name)]
    callback.on_plan(plan, list(recipe.loss), recipe.epochs)
    with lock_run(out) if session.group.is_main else nullcontext():
        return session.finish(trainer, record, resume=True)


@dataclass(frozen=True)
class _TrainingSession:
    """Objects of a training run after the plan is resolved."""

    collection: DatasetIndex
    teachers: list[LoadedTeacher]
    spec: ModelSpec
    input: ImageInput
    compute: ComputeDevice
    group: ProcessGroup
    out: Path
    callback: RunCallback

    def trainer(self, recipe: TrainingRecipe, beginning: TrainConfig | None) -> tuple[Trainer, InitSummary | None]:
        """Build a trainer with an initial student according to the request, or one to be restored if it is None."""
        images, val = self._decoded()
        student, init_summary = build_student(
            self.spec,
            self.input,
            self.compute,
            self.group,
            seed=recipe.seed,
            weights=None if beginning is None else beginning.weights,
            init_from=init_source(self.teachers).model
            if beginning is not None and beginning.init == "teacher"
            else None,
        )
        teacher, record, cache = as_teacher(self.teachers, self.compute), teacher_record(self.teachers), None
        if recipe.cached_views and teacher is not None and record is not None:
            key = cache_key(record, teacher, images, val, recipe, self.compute, len(self.collection.labels))
            cache = TeacherCache(self.out.parent / TEACHER_CACHE, key)
        trainer = build_trainer(
            student,
            teacher,
            images,
            val,
            recipe,
            self.group,
            self.compute,
            classes=len(self.collection.labels),
            cache=cache,
            progress=self.callback.on_progress,
        )
        return trainer, init_summary

    def warn_on_aspect_mismatch(self) -> None:
        """Warn about teachers with a non-square input."""
        for teacher in self.teachers:
            height, width = teacher.input.height, teacher.input.width
            if height != width:
                self.callback.on_warning(
                    f"The teacher {teacher.name} takes images of {width} × {height} px, but students take square "
                    "images: it receives a stretched center crop of each image. Its accuracy on these is printed below."
                )

    def warn_if_teacher_at_chance(self, trainer: Trainer) -> None:
        """Warn about a teacher whose accuracy is at chance level."""
        labels, top1 = self.collection.labels, trainer.evaluator.teacher_top1
        if top1 is not None and top1 < ABOUT_CHANCE / len(labels):
            self.callback.on_warning(
                f"The teacher's top-1 is {100 * top1:.1f} % on the validation images, about chance. "
                f"Check that its classes are in the order of the folders ({', '.join(labels[:3])}, …)."
            )

    def finish(self, trainer: Trainer, record: RunRecord, *, resume: bool) -> RunRecord:
        """Train, evaluate on the test images, and complete the record."""
        try:
            with stop_requests() as must_stop:
                result = trainer.run(self.out, self.callback, resume=resume, must_stop=must_stop)
        finally:
            trainer.batches.images.close()
            trainer.evaluator.val.close()
        if result is None:
            if must_stop.signal == signal.SIGINT:
                raise KeyboardInterrupt  # the usual behavior of Ctrl-C, but after writing a checkpoint
            return record
        if self.collection.test is not None:
            result["test"] = self._test(trainer)
        record = record.finished(result)
        if self.group.is_main:
            write_run(self.out, record)
        return record

    def _decoded(self) -> tuple[ImageStore, ImageStore]:
        images, val, problems = training_images(
            self.collection, self.input, self.compute, self.group, self.callback.on_progress
        )
        if problems:
            self.callback.on_warning(str(problems))
        return images, val

    def _test(self, trainer: Trainer) -> dict[str, dict[str, float]]:
        """Compute the metrics of the best and last epoch on test images, which no decision has used.

        Raises:
            DataError: None of the test images is readable.
        """
        assert self.collection.test is not None
        test_images, problems = evaluation_images(
            self.collection.test,
            self.input,
            self.compute,
            self.group,
            self.callback.on_progress,
            beside=(trainer.batches.images, trainer.evaluator.val),
        )
        if not len(test_images):
            raise DataError(
                f"No test image in {self.collection.source} is readable ({problems}). All epochs are "
                "done: restore the files and continue with --resume."
            )
        if problems:
            self.callback.on_warning(f"Test images: {problems}")
        try:
            return trainer.test({"best": self.out / BEST, "last": self.out / LAST}, test_images)
        finally:
            test_images.close()


def _allow_own_code(request: TrainConfig) -> None:
    """Allow the execution of Python files that the request itself names."""
    for name in (request.model, *request.teacher):
        allow_typed(name)


def _collection(data: str, images_per_class: int | None) -> DatasetIndex:
    collection = index_dataset(data)
    return collection if images_per_class is None else subset(collection, images_per_class)


def _require_same_request(request: TrainConfig, record: RunRecord, out: Path) -> None:
    if record.kind != request.kind:
        raise UsageError(f"{out} was created by kdedge {record.kind}. Continue it with kdedge {record.kind} --resume.")
    if request.recipe is not None and request.given["recipe_sha256"] != record.request.get("recipe_sha256"):
        raise UsageError(
            f"The recipe {request.recipe} differs from the one that {out} was started with. "
            "Remove --recipe to resume with the recorded recipe, or start a new run with another --out."
        )
    for option, value in request.given.items():
        if record.request.get(option) != value:
            shown = option.replace("_", "-")
            raise UsageError(
                f"{out} was started with {shown} {record.request.get(option, 'left to its default')!r}, not {value!r}. "
                "Resume with the same options, or start a new run with another --out."
            )
