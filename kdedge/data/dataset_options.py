"""Options of reading a dataset, which every later step of a run needs again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["NO_OPTIONS", "DatasetOptions"]


@dataclass(frozen=True)
class DatasetOptions:
    """Options of reading a dataset; None leaves one to the modality."""

    group_by: str | None = None
    """Regular expression of sample names, or column of a table. Samples with the same match stay in one split."""
    window: str | None = None
    """Length of the windows that recordings are cut into, a time such as `1s` or a number of steps."""
    target: str | None = None
    """Column of the ground truth in a table."""
    schema: str | None = None
    """File with the kinds and categories of the columns of a table."""
    task: str | None = None
    """Task of the targets, if the samples allow several, such as `regression`; None leaves it to the modality."""

    @property
    def given(self) -> dict[str, str]:
        """Options that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "DatasetOptions":
        """Restore the options from `given`."""
        return cls(**values)


NO_OPTIONS = DatasetOptions()
"""Options that leave everything to the modality."""
