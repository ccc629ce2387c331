"""Training runs: from a request to a finished run folder."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from kdedge.config.defaults import check_map_size
from kdedge.config.recipe_file import Recipe
from kdedge.config.resolved_config import ResolvedConfig, requested_recipe
from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.code_trust import allow_typed
from kdedge.models.run_folder import (
    BEST,
    HEAD,
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
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.compute_device import choose_device
from kdedge.training.distributed import join_process_group
from kdedge.training.evaluator import Evaluator
from kdedge.training.initial_weights import find_initial_weights, initial_request
from kdedge.training.plan_summary import summarize_plan
from kdedge.training.resolution import measure_config
from kdedge.training.resumed_request import require_same_request
from kdedge.training.run_callback import RunCallback
from kdedge.training.run_completion import complete_run
from kdedge.training.run_parts import build_run_parts
from kdedge.training.teachers.confidence import measure_confidence
from kdedge.training.teachers.embedding_teacher import embedding_size
from kdedge.training.teachers.teacher_groups import other_groups
from kdedge.training.teachers.teacher_loading import (
    load_teachers,
    reload_teachers,
    teacher_labels,
    teacher_record,
)
from kdedge.training.training_data import data_record, index_training_data, join_unlabeled, reopen_training_data
from kdedge.training.unlabeled_samples import check_unlabeled_request
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.counts import counted

__all__ = ["continue_run", "start_run"]


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
        DataError: the samples cannot train a classifier, or the test samples disappeared during training.
    """
    check_folder_free(out)
    _allow_own_code(request)
    compute = choose_device(device, compiled=compiled)
    group = join_process_group(compute.device)
    group.wait()  # another process of this run must not create the folder before all have checked it
    indexed = index_training_data(
        request.data,
        request.dataset_options,
        request.samples_per_class,
        request.leave_out,
        request.kind,
        request.task,
    )
    modality = TRAINING_MODALITIES[indexed.modality]
    if (finished := modality.fit(request, indexed, out, callback)) is not None:
        return finished
    start = group.main_first(lambda: find_initial_weights(request, modality))
    given = request.given
    request = request if start is None else request.with_weights(start.file)
    recipe = _recipe(request, indexed, has_labels=not indexed.is_unlabeled)
    check_unlabeled_request(request, indexed, recipe)
    teachers = group.main_first(lambda: load_teachers(request, indexed, recipe.loss.weights))
    labels = teacher_labels(teachers[0]) if indexed.is_unlabeled else indexed.labels
    on_cpu = compute.device.type == "cpu"
    spec, spec_input = modality.choose_network(request, teachers, replace(indexed, labels=labels), on_cpu=on_cpu)
    if TASKS[indexed.task].has_embedding:
        spec = replace(spec, embedding=embedding_size(teachers[0]))
    dataset, unlabeled = join_unlabeled(indexed, labels, request.unlabeled, request.every_s, callback)
    recipe = _recipe(request, dataset, has_labels=not indexed.is_unlabeled)
    parts = build_run_parts(
        dataset,
        spec,
        spec_input,
        recipe,
        teachers,
        compute,
        group,
        out.parent / TEACHER_CACHE,
        callback,
        seed=request.seed or 0,
        cached_views=request.cache_teacher or 0,
        initial=request,
    )
    train_step, batches, evaluator = parts.train_step, parts.batches, parts.evaluator
    samples, val = batches.samples, evaluator.val
    check_map_size(train_step.student.map_size, spec_input)
    _warn_about_teachers(teachers, spec_input, evaluator, labels, callback)
    for teacher in teachers:
        if (warning := other_groups(teacher, dataset.source, request.group_by)) is not None:
            callback.on_warning(warning)
    confidence = None if unlabeled is None else measure_confidence(evaluator, samples)
    if confidence is not None and confidence.warning is not None:
        callback.on_warning(confidence.warning)
    if recipe.fit_head and parts.last_layer is None:
        recipe = replace(recipe, fit_head=False)
    config = measure_config(request, recipe, train_step, batches, on_cpu=on_cpu, warn=callback.on_warning)
    trainer = parts.trainer(config)
    lines = summarize_plan(
        request,
        recipe.name,
        trainer,
        teachers,
        spec,
        start,
        parts.init_summary,
        parts.windows,
        labels,
        unlabeled,
        confidence,
    )
    callback.on_plan(lines, list(config.loss), config.epochs, TRAINING_TASKS[dataset.task].unit(labels))
    record = RunRecord(
        kind=request.kind,
        model=spec,
        input=spec_input,
        labels=labels,
        data=data_record(request, dataset, len(samples), len(val), unlabeled),
        recipe=asdict(config),
        request=given,
        device=compute.name,
        task=dataset.task,
        teacher=teacher_record(teachers),
        start=None if start is None else start.record,
    )
    with lock_run(out) if group.is_main else nullcontext():
        if group.is_main:
            check_folder_free(out)  # planning takes a while
            # Left by a run whose record is gone: --resume would use its weights.
            for left in (METRICS, HEAD, BEST, LAST):
                (out / left).unlink(missing_ok=True)
            write_run(out, record)
            modality.write_companions(dataset, spec_input, out)
        return complete_run(trainer, record, dataset.test, out, callback, resume=False)


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
        DataError: the samples are not those that the run was started with.
    """
    record = read_run(out)
    _allow_own_code(request)
    require_same_request(request, record, out)
    config, unit = ResolvedConfig.from_record(record.recipe), TRAINING_TASKS[record.task].unit(record.labels)
    if record.result is not None:
        complete = [("resume", f"{out} is complete after {counted(config.epochs, 'epoch')}")]
        callback.on_plan(complete, [], config.epochs, unit)
        return record
    dataset = reopen_training_data(record, out, callback)
    compute = choose_device(device, compiled=compiled)
    group = join_process_group(compute.device)
    modality = TRAINING_MODALITIES[dataset.modality]
    has_checkpoint = (out / LAST).is_file()
    initial = None if has_checkpoint else group.main_first(lambda: initial_request(record, out, modality))
    teachers = group.main_first(lambda: reload_teachers(record.teacher, out))
    parts = build_run_parts(
        dataset,
        record.model,
        record.input,
        config.recipe,
        teachers,
        compute,
        group,
        out.parent / TEACHER_CACHE,
        callback,
        seed=config.seed,
        cached_views=config.cached_views,
        initial=initial,
    )
    samples, val = parts.batches.samples, parts.evaluator.val
    counts = {"train": len(samples), "val": len(val)}
    if any(record.data[side] != count for side, count in counts.items()):
        raise DataError(
            f"{out} was started with {record.data['train']:,} samples for training and {record.data['val']:,} for "
            f"validation, but {counts['train']:,} and {counts['val']:,} are readable now, so it cannot be resumed "
            "exactly. Restore the files, or start a new run with another --out."
        )
    plan = [("resume", f"{out}, {counted(config.epochs, 'epoch')} in total"), ("device", compute.name)]
    callback.on_plan(plan, list(config.loss), config.epochs, unit)
    trainer = parts.trainer(config)
    with lock_run(out) if group.is_main else nullcontext():
        return complete_run(trainer, record, dataset.test, out, callback, resume=True)


def _warn_about_teachers(
    teachers: Sequence[LoadedTeacher],
    spec_input: InputSpec,
    evaluator: Evaluator,
    labels: tuple[str, ...],
    callback: RunCallback,
) -> None:
    """Warn about teachers with another kind of input, and about metrics that seem wrong."""
    for teacher in teachers:
        mismatch = TRAINING_MODALITIES[spec_input.kind].mismatch(teacher.input, spec_input)
        if mismatch is not None:
            callback.on_warning(f"The teacher {teacher.name} {mismatch}")
    if evaluator.teacher_metrics:
        is_named = all(teacher.labels is not None for teacher in teachers)
        task = TRAINING_TASKS[evaluator.task]
        warning = task.teacher_warning(evaluator.teacher_metrics, labels, is_named=is_named)
        if warning is not None:
            callback.on_warning(warning)


def _allow_own_code(request: TrainConfig) -> None:
    """Allow the execution of Python files that the request itself names."""
    for name in (request.model, *request.teacher):
        allow_typed(name)


def _recipe(request: TrainConfig, data: DatasetIndex, *, has_labels: bool) -> Recipe:
    return requested_recipe(
        request, len(data.train), len(data.labels), data.task, modality=data.modality, has_labels=has_labels
    )
