"""Warnings about categories that a model was not trained with."""

import logging
from collections.abc import Mapping

__all__ = ["UnseenCategories"]

_log = logging.getLogger(__name__)
_MOST = 100
"""Number of different categories that are logged; a column of free texts has no end of them."""


class UnseenCategories:
    """Categories that were logged, each once."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def warn(self, found: Mapping[str, str]) -> None:
        """Log new categories of a row.

        Args:
            found: category by column, see `TabularInput.unseen`.
        """
        for column, value in found.items():
            if len(self._known) >= _MOST or (column, value) in self._known:
                continue
            self._known.add((column, value))
            _log.warning(
                "The column %r has %r, which is not among the categories of the model. It counts as missing.%s",
                column,
                value[:40],
                " Further ones are not logged." if len(self._known) == _MOST else "",
            )
