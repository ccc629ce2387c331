"""Roles of the models in a validation, and the reference of each."""

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
"""Display names, from teacher to int8."""

WORDS: dict[Role, str] = {"teacher": "teacher", "student": "PyTorch student", "fp32": "fp32 file", "int8": "int8 file"}
"""Names for use within sentences."""


def origin(roles: Container[Role]) -> Role:
    """Return the first model in the chain: the PyTorch student, or the fp32 file without one.

    All maps explain its predictions.
    """
    return "student" if "student" in roles else "fp32"


def reference(role: Role, roles: Container[Role]) -> Role | None:
    """Return the reference of a role; None if it has none.

    Both files are compared with the PyTorch student, so that errors cannot accumulate unnoticed. A model file from
    another framework has no student, and its int8 file is compared with the fp32 file.

    Args:
        role: role of the candidate.
        roles: roles of all models in the validation.
    """
    first = origin(roles)
    wanted: Role = "teacher" if role == first else first
    return wanted if role != "teacher" and wanted in roles else None


def shipped(roles: Container[Role]) -> Role:
    """Return the role of the deployed file: int8 if present, else fp32."""
    return "int8" if "int8" in roles else "fp32"
