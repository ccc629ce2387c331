"""Models and model files that are compared with each other."""

from dataclasses import dataclass
from pathlib import Path

from kdedge_runtime.model import Model
from kdedge_runtime.precision import Precision, precision_of

__all__ = ["Candidate"]


@dataclass(frozen=True)
class Candidate:
    """One of several models under validation, in a benchmark or in a bundle."""

    name: str
    """Name in reports: that of its precision, or `teacher` or `student`."""
    title: str
    """Name in tables."""
    words: str
    """Name within sentences."""
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
        return cls.of_file(precision_of(model.metadata), model.path)

    @classmethod
    def of_file(cls, precision: Precision, path: Path) -> "Candidate":
        """Describe a model file by its precision."""
        return cls(precision.name, precision.title, f"{precision.name} file", precision, path)
