"""From run folders to everything that a comparison shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.pipelines.onnx_teacher_file import TeacherFile
from kdedge.pipelines.origins import load_origin
from kdedge.pipelines.run_history import RunHistory, TeacherOrigin, read_histories
from kdedge.pipelines.run_predictions import Answers, Progress, Questions
from kdedge.pipelines.seed_groups import SeedGroup, doubts, seed_groups
from kdedge_runtime.errors import KdedgeError

__all__ = ["Comparison", "compare_runs"]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: tuple[RunHistory, ...]
    """In the order in which they were named; the first one is the baseline."""
    groups: tuple[SeedGroup, ...]
    parameters: Mapping[str, int]
    """Number of weights of each run's model, by the run's name; missing where its weights cannot be loaded."""
    answers: tuple[Answers, ...]
    """Of each run's best epoch, in the order of the runs; all to the same pictures."""
    teachers: tuple[Answers, ...]
    """Of the teachers that are not among these runs, to the same pictures."""
    doubts: tuple[str, ...]
    """Why some figures cannot be held against each other."""
    notes: tuple[str, ...]
    """What was left out, and why."""


def compare_runs(
    folders: Sequence[Path], *, data: str | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Read runs, and ask the best epoch of each about its validation pictures.

    Runs whose weights or pictures are gone keep their recorded figures.

    Args:
        folders: run folders, the baseline first.
        data: pictures to ask about; None takes those that each run was trained with.
        progress: told while pictures are read and models are asked.

    Raises:
        UsageError: a folder is no run, its files are damaged, or no run has finished an epoch.
    """
    runs = read_histories(folders)
    groups = seed_groups(runs)
    questions, notes = Questions(data, len(runs) + len(_absent_teachers(runs)), progress), _Notes()
    parameters: dict[str, int] = {}
    answers: list[Answers] = []
    for run in runs:
        if run.last is None:
            notes.add("no epoch is finished yet", run.name)
            continue
        try:
            trained = load_trained(str(run.folder))
            parameters[run.name] = trained.parameters
            answer = questions.ask(run.name, trained, run)
        except KdedgeError as error:
            notes.add(f"no answers to pictures, only recorded figures. {error}", run.name)
            continue
        if answers and not _same_pictures(answer, answers[0]):
            notes.add(f"left out of classes and pictures, which are those of {answers[0].title}", run.name)
            continue
        if data is None and answer.pictures.fingerprint != run.record.data["fingerprint"]:
            notes.add(f"the pictures in {answer.pictures.source} have changed since it was trained", run.name)
        if answer.pictures.part is not None:
            notes.add(f"classes and pictures are of {answer.pictures.part}", run.name)
        answers.append(answer)
    asked = {answer.title for answer in answers}
    teachers = []
    for origin, run in _absent_teachers([run for run in runs if run.name in asked]).values():
        title = origin.name if "teacher" in origin.name else f"{origin.name} (teacher)"
        try:
            teacher = load_origin(origin.source, origin.weights, origin.sha256).model
            asked_model = teacher if isinstance(teacher, TrainedModel) else TeacherFile.of(teacher)
            teachers.append(questions.ask(title, asked_model, run))
        except KdedgeError as error:
            notes.add(f"left out of the pictures. {error}", f"the teacher {origin.name}")
    return Comparison(
        runs, groups, parameters, tuple(answers), tuple(teachers), tuple(doubts(runs, groups)), tuple(notes.lines())
    )


class _Notes:
    """Reasons, each with all that it holds for: a folder that is gone is one line, not one a run."""

    def __init__(self) -> None:
        self._whom: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self._whom.setdefault(reason, []).append(name)

    def lines(self) -> list[str]:
        return [f"{', '.join(names)}: {reason}" for reason, names in self._whom.items()]


def _same_pictures(one: Answers, other: Answers) -> bool:
    a, b = one.pictures, other.pictures
    return (a.fingerprint, a.names, a.labels) == (b.fingerprint, b.names, b.labels)


def _absent_teachers(runs: Sequence[RunHistory]) -> dict[str, tuple[TeacherOrigin, RunHistory]]:
    """Each teacher that is not one of these runs, with the first run that it taught, by identity."""
    known = {str(run.folder) for run in runs}
    lessons = [(origin, run) for run in reversed(runs) for origin in run.teachers if origin.source not in known]
    return {origin.identity: (origin, run) for origin, run in reversed(lessons)}
