"""Embedding of a model file: its size and the identity of its weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from kdedge_runtime.util.json_values import is_finite_number

__all__ = ["EMBEDDING", "MAX_VALUES", "PROTOTYPES", "Embedding"]

EMBEDDING = "embedding"
"""Graph output, float32 `[N, D]`: L2-normalized embeddings. Also the name of the task of files that have it."""
PROTOTYPES = "prototypes"
"""Optional graph input, float32 `[M, D]`: one vector a class, of a length from 1e-6; default: the file's classes."""
MAX_VALUES = 65_536
"""Maximum size of an embedding."""
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Embedding:
    """Description of the output `embedding`, an entry of the metadata."""

    size: int
    """Number of values `D`."""
    id: str
    """Identity of the weights, 16 hexadecimal digits: equal for all precisions of one export."""
    threshold: float | None = None
    """Similarity to enrolled classes below which a sample is unknown, in [-1, 1]; None without a measured one."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse an entry of the metadata or of a file of enrolled classes; unknown keys are ignored.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: the entry is damaged.
        """
        size, identity = values["size"], values["id"]
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_VALUES:
            raise ValueError(f"invalid size {size!r} of an embedding, expected 1 to {MAX_VALUES}")
        if not isinstance(identity, str) or _ID.fullmatch(identity) is None:
            raise ValueError(f"invalid id {identity!r} of an embedding, expected 16 hexadecimal digits")
        threshold = values.get("threshold")
        if threshold is not None and not (is_finite_number(threshold) and -1 <= threshold <= 1):
            raise ValueError(f"invalid threshold {threshold!r} of an embedding, expected -1 to 1")
        return cls(size, identity, threshold)

    def is_of(self, other: "Embedding") -> bool:
        """Return True if embeddings of both can be compared: they have the same weights and size."""
        return (self.size, self.id) == (other.size, other.id)
