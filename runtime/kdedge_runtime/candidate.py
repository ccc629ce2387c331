"""Models and model files that are compared with each other."""

from dataclasses import dataclass
from pathlib import Path

from kdedge_runtime.model import Model
from kdedge_runtime.precision import Precision, precision_of

__all__ = ["Candidate"]

_MODULES = {"teacher": ("Teacher", "teacher"), "student": ("Student, PyTorch", "PyTorch student")}
"""Title and words of the models that are PyTorch modules, not files."""


@dataclass(frozen=True)
class Candidate:
    """One of several models under validation, in a benchmark or in a bundle."""

    name: str
    """Name in reports: that of its precision, or `teacher` or `student`."""
    precision: Precision | None = None
    """Precision of a model file; None for a teacher or student in PyTorch."""
    path: Path | None = None
    """Model file; None without a file."""

    @classmethod
    def of(cls, model: Model) -> "Candidate":
        """Describe a loaded file by its metadata.

        Raises:
            UsageError: the file has a precision that this version does not know.
        """
        precision = precision_of(model.metadata)
        return cls(precision.name, precision, model.path)

    @property
    def title(self) -> str:
        """Name in tables."""
        return _MODULES[self.name][0] if self.precision is None else self.precision.title

    @property
    def words(self) -> str:
        """Name within sentences."""
        return _MODULES[self.name][1] if self.precision is None else f"{self.name} file"
