"""Who takes part in a validation, and who is held against whom."""

from collections.abc import Container
from typing import Literal

__all__ = ["REFERENCE", "TITLES", "WORDS", "Role", "shipped"]

Role = Literal["teacher", "student", "fp32", "int8"]

TITLES: dict[Role, str] = {
    "teacher": "Teacher",
    "student": "Student, PyTorch",
    "fp32": "ONNX, fp32",
    "int8": "ONNX, int8",
}
"""Headings, in the order in which the model travels."""

WORDS: dict[Role, str] = {"teacher": "teacher", "student": "student", "fp32": "fp32 file", "int8": "int8 file"}
"""The same inside a sentence."""

REFERENCE: dict[Role, Role] = {"student": "teacher", "fp32": "student", "int8": "student"}
"""Candidate to reference. Both files answer to the PyTorch student, so that errors cannot hide in a chain."""


def shipped(roles: Container[Role]) -> Role:
    """The file that goes to the device, of those who take part: int8 where there is one."""
    return "int8" if "int8" in roles else "fp32"
