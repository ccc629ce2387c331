"""From what the user asked for to a finished run folder."""

import signal
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from kdedge.config.defaults import check_map_size
from kdedge.config.train_config import Request, plan_for
from kdedge.config.training_recipe import Recipe
from kdedge.data import Collection, scan, subset
from kdedge.models.code_trust import allow_typed
from kdedge.models.init_from_teacher import Inherited
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import (
    ANSWERS,
    BEST,
    LAST,
    METRICS,
    RunRecord,
    lock_run,
    read_run,
    require_free,
    write_run,
)
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.training.builder import assemble, cache_key, first_student
from kdedge.training.compute_device import Compute, choose_compute
from kdedge.training.distributed import Group, join_group
from kdedge.training.image_store import Images, images_for_testing, training_images
from kdedge.training.interruption import stop_requests
from kdedge.training.plan_summary import describe
from kdedge.training.resolution import choose_network, draft_recipe, settle_recipe
from kdedge.training.teachers.teacher_cache import AnswerCache
from kdedge.training.teachers.teacher_loading import (
    as_teacher,
    heritage,
    load_teachers,
    reload_teachers,
    teacher_record,
)
from kdedge.training.trainer import Observer, Trainer
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

    def on_ask(self, done: int, total: int) -> None:
        """While the teacher is asked about pictures, for its answers to be kept."""


def start_run(
    request: Request, out: Path, audience: Audience, device: str = "auto", *, compiled: bool = False
) -> RunRecord:
    """Train a model from the beginning.

    Args:
        request: what the user asked for.
        out: the run folder to write.
        audience: who is told.
        device: see `choose_compute`.
        compiled: see `choose_compute`.

    Returns:
        The record; its `result` is None when SIGTERM ended training before the last epoch.

    Raises:
        UsageError: the request cannot be met, or `out` holds a run already.
        DataError: the pictures cannot train a classifier, or those for testing are gone when it is trained.
    """
    require_free(out)
    _allow_own_code(request)
    compute = choose_compute(device, compiled=compiled)
    group = join_group(compute.device)
    group.wait()  # nobody may find the folder that another process of this run has made already
    collection = _collection(request.data, request.images_per_class)
    teachers = load_teachers(request, collection)
    on_cpu = compute.device.type == "cpu"
    spec, spec_input = choose_network(request, teachers, collection, on_cpu=on_cpu)
    plan = plan_for(request, len(collection.train), len(collection.labels))
    desk = _Desk(collection, teachers, spec, spec_input, compute, group, out, audience)
    trainer, inherited = desk.trainer(draft_recipe(plan, request), request)
    check_map_size(trainer.learner.student.map_size)
    desk.warn_of_stretching()
    desk.warn_of_a_stranger(trainer)
    trainer.recipe = recipe = settle_recipe(trainer, plan, group, on_cpu=on_cpu, warn=audience.on_warning)
    lines = describe(request, plan, trainer, teachers, spec, recipe, inherited)
    audience.on_plan(lines, list(recipe.loss), recipe.epochs)
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
            "val": len(trainer.examiner.val),
            "images_per_class": request.images_per_class,
        },
        recipe=asdict(recipe),
        request=request.given,
        device=compute.name,
        teacher=teacher_record(teachers),
    )
    with lock_run(out) if group.leads else nullcontext():
        if group.leads:
            require_free(out)  # planning takes a while
            for left in (METRICS, BEST, LAST):  # by a run whose record is gone: --resume would go on with its weights
                (out / left).unlink(missing_ok=True)
            write_run(out, record)
        return desk.finish(trainer, record, resume=False)


def continue_run(
    request: Request, out: Path, audience: Audience, device: str = "auto", *, compiled: bool = False
) -> RunRecord:
    """Go on with a run exactly where it ended; one that is complete stays as it is.

    Args:
        request: as for `start_run`; options that are given must be those that the run was started with.
        out: the run folder.
        audience: who is told.
        device: see `choose_compute`.
        compiled: see `choose_compute`.

    Raises:
        UsageError: there is no run, it was started with other options, or its teacher has changed.
        DataError: the pictures are not those that the run was started with.
    """
    record = read_run(out)
    _allow_own_code(request)
    _require_same_request(request, record, out)
    recipe = Recipe.from_record(record.recipe)
    if record.result is not None:
        audience.on_plan([("resume", f"{out} is complete: all {recipe.epochs} epochs are done")], [], recipe.epochs)
        return record
    collection = _collection(record.data["source"], record.data["images_per_class"])
    if collection.fingerprint != record.data["fingerprint"]:
        raise DataError(
            f"The pictures in {collection.source} have changed since {out} was started, so it cannot continue exactly. "
            "Start another run with another --out."
        )
    compute = choose_compute(device, compiled=compiled)
    teachers = reload_teachers(record.teacher, out)
    desk = _Desk(collection, teachers, record.model, record.input, compute, join_group(compute.device), out, audience)
    started = (out / LAST).is_file()
    trainer, _ = desk.trainer(recipe, None if started else Request.from_record(record.request))
    counts = {"train": len(trainer.batches.images), "val": len(trainer.examiner.val)}
    if any(record.data[side] != count for side, count in counts.items()):
        raise DataError(
            f"{out} was started with {record.data['train']:,} pictures to train on and {record.data['val']:,} to "
            f"validate, but {counts['train']:,} and {counts['val']:,} can be read now, so it cannot continue exactly. "
            "Mend the files, or start another run with another --out."
        )
    plan = [("resume", f"{out}, {recipe.epochs} epochs in all"), ("device", compute.name)]
    audience.on_plan(plan, list(recipe.loss), recipe.epochs)
    with lock_run(out) if desk.group.leads else nullcontext():
        return desk.finish(trainer, record, resume=True)


@dataclass(frozen=True)
class _Desk:
    """What a run works with, once it is settled."""

    collection: Collection
    teachers: list[LoadedTeacher]
    spec: ModelSpec
    input: ImageInput
    compute: Compute
    group: Group
    out: Path
    audience: Audience

    def trainer(self, recipe: Recipe, beginning: Request | None) -> tuple[Trainer, Inherited | None]:
        """A trainer whose student begins as the request says (and what it has of its teacher); None: as restored."""
        images, val = self._decoded()
        student, inherited = first_student(
            self.spec,
            self.input,
            self.compute,
            self.group,
            seed=recipe.seed,
            weights=None if beginning is None else beginning.weights,
            heir_of=heritage(self.teachers).model if beginning is not None and beginning.init == "teacher" else None,
        )
        teacher, record, cache = as_teacher(self.teachers, self.compute), teacher_record(self.teachers), None
        if recipe.cached_views and teacher is not None and record is not None:
            key = cache_key(record, teacher, images, val, recipe, self.compute, len(self.collection.labels))
            cache = AnswerCache(self.out.parent / ANSWERS, key)
        trainer = assemble(
            student,
            teacher,
            images,
            val,
            recipe,
            self.group,
            self.compute,
            classes=len(self.collection.labels),
            cache=cache,
            progress=self.audience.on_ask,
        )
        return trainer, inherited

    def warn_of_stretching(self) -> None:
        """Tell of teachers that must look at pictures of another shape than they were trained on."""
        for teacher in self.teachers:
            height, width = teacher.input.height, teacher.input.width
            if height != width:
                self.audience.on_warning(
                    f"The teacher {teacher.name} takes pictures of {width} × {height} px, and students take square "
                    "ones: it is shown the middle of each picture, stretched. How often it is right then is said below."
                )

    def warn_of_a_stranger(self, trainer: Trainer) -> None:
        """Tell of a teacher that does no better than chance."""
        labels, top1 = self.collection.labels, trainer.examiner.teacher_top1
        if top1 is not None and top1 < ABOUT_CHANCE / len(labels):
            self.audience.on_warning(
                f"The teacher is right on {100 * top1:.1f} % of the validation images, about chance. "
                f"Are its classes in the order of the folders ({', '.join(labels[:3])}, …)?"
            )

    def finish(self, trainer: Trainer, record: RunRecord, *, resume: bool) -> RunRecord:
        """Train, read the test pictures, and complete the record."""
        try:
            with stop_requests() as must_stop:
                result = trainer.run(self.out, self.audience, resume=resume, must_stop=must_stop)
        finally:
            trainer.batches.images.close()
            trainer.examiner.val.close()
        if result is None:
            if must_stop.signal == signal.SIGINT:
                raise KeyboardInterrupt  # what Ctrl-C means everywhere; but a checkpoint is written
            return record
        if self.collection.test is not None:
            result["test"] = self._test(trainer)
        record = record.finished(result)
        if self.group.leads:
            write_run(self.out, record)
        return record

    def _decoded(self) -> tuple[Images, Images]:
        images, val, problems = training_images(
            self.collection, self.input, self.compute, self.group, self.audience.on_decode
        )
        if problems:
            self.audience.on_warning(str(problems))
        return images, val

    def _test(self, trainer: Trainer) -> dict[str, dict[str, float]]:
        """The figures of the best and of the last epoch on pictures that no decision has looked at.

        Raises:
            DataError: none of them can be read any more.
        """
        assert self.collection.test is not None
        pictures, problems = images_for_testing(
            self.collection.test,
            self.input,
            self.compute,
            self.group,
            self.audience.on_decode,
            beside=(trainer.batches.images, trainer.examiner.val),
        )
        if not len(pictures):
            raise DataError(
                f"No picture for testing in {self.collection.source} can be read ({problems}). All epochs are "
                "done: put the files back and go on with --resume."
            )
        if problems:
            self.audience.on_warning(f"Of the pictures for testing, {problems}")
        try:
            return trainer.test({"best": self.out / BEST, "last": self.out / LAST}, pictures)
        finally:
            pictures.close()


def _allow_own_code(request: Request) -> None:
    """Allow the Python files that the request itself names."""
    for name in (request.model, *request.teacher):
        allow_typed(name)


def _collection(data: str, images_per_class: int | None) -> Collection:
    collection = scan(data)
    return collection if images_per_class is None else subset(collection, images_per_class)


def _require_same_request(request: Request, record: RunRecord, out: Path) -> None:
    if record.kind != request.kind:
        raise UsageError(f"{out} was made by kdedge {record.kind}. Continue it with kdedge {record.kind} --resume.")
    if request.recipe is not None and request.given["recipe_sha256"] != record.request.get("recipe_sha256"):
        raise UsageError(
            f"The recipe {request.recipe} has changed since {out} was started, or another one was given then. "
            "Leave --recipe out to go on as before, or start another run with another --out."
        )
    for option, value in request.given.items():
        if record.request.get(option) != value:
            shown = option.replace("_", "-")
            raise UsageError(
                f"{out} was started with {shown} {record.request.get(option, 'left to its default')!r}, not {value!r}. "
                "Resume with the same options, or start another run with another --out."
            )
