"""Comparison of training runs: metrics, predictions and maps on shared samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.models.trees import is_tree_run
from kdedge.models.trees.ensemble import TreeEnsemble, load_tree_run
from kdedge.pipelines.onnx_teacher_file import OnnxTeacherFile
from kdedge.pipelines.origins import load_origin
from kdedge.pipelines.run_history import RunHistory, TeacherOrigin, read_histories
from kdedge.pipelines.run_predictions import PredictionQueries, RunPredictions
from kdedge.pipelines.run_teacher import other_task
from kdedge.pipelines.seed_groups import SeedGroup, comparability_warnings, group_by_seed
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["RunComparison", "compare_runs"]


@dataclass(frozen=True)
class RunComparison:
    """Runs with everything that the comparison shows."""

    runs: tuple[RunHistory, ...]
    """Runs in the order given; the first is the baseline."""
    groups: tuple[SeedGroup, ...]
    parameters: Mapping[str, int]
    """Mapping from run name to parameter count; missing for trees, and if the weights cannot be loaded."""
    predictions: tuple[RunPredictions, ...]
    """Predictions at each run's best epoch, in the order of the runs, all on the same samples."""
    teachers: tuple[RunPredictions, ...]
    """Predictions of teachers that are not among the runs, on the same samples."""
    warnings: tuple[str, ...]
    """Warnings about metrics that are not comparable."""
    notes: tuple[str, ...]
    """Notes on excluded data, with reasons."""


def compare_runs(
    folders: Sequence[Path], *, data: str | None = None, progress: ProgressCallback = no_progress
) -> RunComparison:
    """Read runs and evaluate the best epoch of each on its validation samples.

    Runs whose weights or samples are missing keep their recorded metrics.

    Args:
        folders: run folders, the baseline first.
        data: samples to evaluate on; None takes the dataset of each run.
        progress: called while samples are read and models are evaluated.

    Raises:
        UsageError: A folder is not a run, its files are damaged, or no run has completed an epoch.
    """
    runs = read_histories(folders)
    groups = group_by_seed(runs)
    predictor, notes = PredictionQueries(data, len(runs) + len(_absent_teachers(runs)), progress), _Notes()
    parameters: dict[str, int] = {}
    predictions: list[RunPredictions] = []
    for run in runs:
        if run.last is None:
            notes.add("no epoch is complete yet", run.name)
            continue
        try:
            trained = _load(run)
            if isinstance(trained, TrainedModel):
                parameters[run.name] = trained.parameters
            prediction = predictor.evaluate(run.name, trained, run)
        except KdedgeError as error:
            notes.add(f"only recorded metrics are shown, no predictions. {error}", run.name)
            continue
        if predictions and not _same_samples(prediction, predictions[0]):
            reason = f"because its samples or their ground truth differ from those of {predictions[0].title}"
            notes.add(f"excluded from the compared predictions, {reason}", run.name)
            continue
        if data is None and prediction.samples.fingerprint != run.record.data["fingerprint"]:
            notes.add(f"the samples in {prediction.samples.source} have changed since training", run.name)
        if prediction.samples.part is not None:
            notes.add(f"the compared predictions cover {prediction.samples.part}", run.name)
        predictions.append(prediction)
    predicted = {prediction.title for prediction in predictions}
    teachers = []
    for origin, run in _absent_teachers([run for run in runs if run.name in predicted]).values():
        title = origin.name if "teacher" in origin.name else f"{origin.name} (teacher)"
        try:
            teacher = load_origin(origin.record).model
            if teacher.task != run.record.task:
                difference = other_task(teacher.task, run.record.task)
                raise UsageError(f"{origin.name} cannot be compared with the runs, {difference}.")
            if isinstance(teacher, TrainedModel) and len(teacher.labels) != len(run.record.labels):
                raise UsageError(f"{origin.name} has other classes, or none; only its features were used.")
            model_of = teacher if isinstance(teacher, TrainedModel | TreeEnsemble) else OnnxTeacherFile.of(teacher)
            teachers.append(predictor.evaluate(title, model_of, run))
        except KdedgeError as error:
            notes.add(f"excluded from the compared predictions. {error}", f"teacher {origin.name}")
    return RunComparison(
        runs,
        groups,
        parameters,
        tuple(predictions),
        tuple(teachers),
        tuple(comparability_warnings(runs, groups)),
        tuple(notes.lines()),
    )


class _Notes:
    """Notes grouped by reason, so that a missing folder gives one line instead of one per run."""

    def __init__(self) -> None:
        self._whom: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self._whom.setdefault(reason, []).append(name)

    def lines(self) -> list[str]:
        return [f"{', '.join(names)}: {reason}" for reason, names in self._whom.items()]


def _load(run: RunHistory) -> TrainedModel | TreeEnsemble:
    if is_tree_run(run.record):
        return load_tree_run(run.folder, run.record)
    return load_trained(str(run.folder))


def _same_samples(one: RunPredictions, other: RunPredictions) -> bool:
    """Return whether samples and ground truth are equal; the classes may be in another order."""
    a, b = (
        (each.fingerprint, each.names, sorted(each.labels), each.ground_truth) for each in (one.samples, other.samples)
    )
    return a == b


def _absent_teachers(runs: Sequence[RunHistory]) -> dict[str, tuple[TeacherOrigin, RunHistory]]:
    """Return the teachers that are not among the runs, by identity, each with the first run that it taught."""
    known = {str(run.folder) for run in runs}
    pairs = [(origin, run) for run in reversed(runs) for origin in run.teachers if origin.source not in known]
    return {origin.identity: (origin, run) for origin, run in reversed(pairs)}
