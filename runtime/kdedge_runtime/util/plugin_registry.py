"""Named implementations of an interface: those of kdedge, and those of other packages, imported on first use."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

__all__ = ["Registry"]

Item = TypeVar("Item")


class Registry(Mapping[str, Item]):
    """Mapping from names to implementations of one interface.

    Packages add implementations with an entry point of the registry's group. An unknown name is a `KeyError`.
    """

    def __init__(
        self, group: str, built_in: Mapping[str, str] | None = None, *, loaded: Mapping[str, Item] | None = None
    ) -> None:
        """Create a registry.

        Args:
            group: entry-point group of other packages, such as `kdedge_runtime.tasks`.
            built_in: location of every built-in implementation that is imported on first use, as `module:attribute`.
            loaded: built-in implementations that are in memory already.
        """
        self._group = group
        self._built_in = dict(built_in or {})
        self._loaded = dict(loaded or {})

    def __getitem__(self, name: str) -> Item:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        installed = (entry.name for entry in self._installed())
        return iter(dict.fromkeys((*self._built_in, *self._loaded, *installed)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

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
        from importlib.metadata import entry_points  # reads all installed packages: only for unknown names and lists

        return entry_points(group=self._group)
