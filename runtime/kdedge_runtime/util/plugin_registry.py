"""Named implementations of an interface: built-in ones, imported on first use, and those of other packages."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

__all__ = ["Registry"]

Item = TypeVar("Item")


class Registry(Generic[Item]):
    """Mapping from names to implementations of one interface.

    Packages add implementations with an entry point of the registry's group.
    """

    def __init__(self, group: str, built_in: Mapping[str, str]) -> None:
        """Create a registry.

        Args:
            group: entry-point group of other packages, such as `kdedge_runtime.tasks`.
            built_in: location of every built-in implementation, as `module:attribute`.
        """
        self._group = group
        self._built_in = dict(built_in)
        self._loaded: dict[str, Item] = {}

    def __getitem__(self, name: str) -> Item:
        """Return an implementation, and import it if necessary.

        Raises:
            KeyError: no package has an implementation of this name.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of built-in implementations and of those of installed packages."""
        return iter(dict.fromkeys((*self._built_in, *(entry.name for entry in self._installed()))))

    def _load(self, name: str) -> Item:
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            item: Item = getattr(importlib.import_module(module), attribute)
            return item
        for entry in self._installed():
            if entry.name == name:
                loaded: Item = entry.load()
                return loaded
        raise KeyError(name)

    def _installed(self) -> Iterable[Any]:
        from importlib.metadata import entry_points  # reads all installed packages: only for unknown names

        return entry_points(group=self._group)
