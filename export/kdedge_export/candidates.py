"""Who takes part in a validation, and who is held against whom."""

from collections.abc import Container
from typing import Literal

__all__ = ["TITLES", "WORDS", "Role", "origin", "reference", "shipped"]

Role = Literal["teacher", "student", "fp32", "int8"]

TITLES: dict[Role, str] = {
    "teacher": "Teacher",
    "student": "Student, PyTorch",
    "fp32": "ONNX, fp32",
    "int8": "ONNX, int8",
}
"""Headings, in the order in which the model travels."""

WORDS: dict[Role, str] = {"teacher": "teacher", "student": "PyTorch student", "fp32": "fp32 file", "int8": "int8 file"}
"""The same inside a sentence."""


def origin(roles: Container[Role]) -> Role:
    """Return the first model of those that take part: the PyTorch student, or the fp32 file where there is none.

    All maps are of its answers.
    """
    return "student" if "student" in roles else "fp32"


def reference(role: Role, roles: Container[Role]) -> Role | None:
    """Return the model that a role is held against; None for one that is held against nothing.

    Both files answer to the PyTorch student, so that errors cannot hide in a chain. A file of another framework has no
    student: its int8 file answers to the fp32 file.

    Args:
        role: of the candidate.
        roles: of all that take part.
    """
    first = origin(roles)
    wanted: Role = "teacher" if role == first else first
    return wanted if role != "teacher" and wanted in roles else None


def shipped(roles: Container[Role]) -> Role:
    """The file that goes to the device, of those who take part: int8 where there is one."""
    return "int8" if "int8" in roles else "fp32"
