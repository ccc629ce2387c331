"""Order and references of the models in a validation: teacher, student, and the files by precision."""

from collections.abc import Collection

from kdedge_runtime.candidate import Candidate
from kdedge_runtime.precision import FP32, PRECISIONS

__all__ = ["STUDENT", "TEACHER", "file_candidates", "origin", "reference", "shipped"]

TEACHER = Candidate("teacher", "Teacher", "teacher")
STUDENT = Candidate("student", "Student, PyTorch", "PyTorch student")


def file_candidates(candidates: Collection[Candidate]) -> list[Candidate]:
    """Return the model files, from the most to the least exact."""
    order = list(PRECISIONS.values())
    files = [candidate for candidate in candidates if candidate.precision is not None]
    return sorted(files, key=lambda candidate: order.index(candidate.precision or FP32))


def origin(candidates: Collection[Candidate]) -> Candidate:
    """Return the first model in the chain: the PyTorch student, or the fp32 file without one.

    All maps explain its predictions.
    """
    return STUDENT if STUDENT in candidates else file_candidates(candidates)[0]


def reference(candidate: Candidate, candidates: Collection[Candidate]) -> Candidate | None:
    """Return the reference of a candidate; None if it has none.

    All files are compared with the PyTorch student, so that errors cannot accumulate unnoticed. A model file from
    another framework has no student, and its other precisions are compared with the fp32 file.

    Args:
        candidate: model to compare.
        candidates: all models in the validation.
    """
    if candidate == TEACHER:
        return None
    first = origin(candidates)
    if candidate == first:
        return TEACHER if TEACHER in candidates else None
    return first


def shipped(candidates: Collection[Candidate]) -> Candidate:
    """Return the deployed file: the one with the least exact precision."""
    return file_candidates(candidates)[-1]
