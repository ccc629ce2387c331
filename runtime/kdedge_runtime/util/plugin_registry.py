"""Named implementations of an interface: those of kdedge, and those of other packages, imported on first use."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from kdedge_runtime.errors import MissingDependency

__all__ = ["MissingPlugin", "Registry"]

Item = TypeVar("Item")


class MissingPlugin(MissingDependency, KeyError):
    """Implementation that no installed package provides, or that cannot be imported."""

    __str__ = Exception.__str__  # KeyError quotes its message


class Registry(Mapping[str, Item]):
    """Mapping from names to implementations of one interface.

    Packages add implementations with an entry point of the registry's group. An unknown name is a `MissingPlugin`.
    """

    def __init__(
        self,
        noun: str,
        group: str,
        built_in: Mapping[str, str] | None = None,
        *,
        loaded: Mapping[str, Item] | None = None,
    ) -> None:
        """Create a registry.

        Args:
            noun: noun of an implementation in errors, such as `task`.
            group: entry-point group of other packages, such as `kdedge_runtime.tasks`.
            built_in: location of every built-in implementation that is imported on first use, as `module:attribute`.
            loaded: built-in implementations that are in memory already.
        """
        self._noun, self._group = noun, group
        self._built_in = dict(built_in or {})
        self._loaded = dict(loaded or {})

    @property
    def built_in(self) -> tuple[str, ...]:
        """Names of the built-in implementations; nothing is imported."""
        return tuple(self._built_in)

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
        found = [entry for entry in self._installed() if entry.name == name]
        if not found:
            raise MissingPlugin(
                f"No installed package provides the {self._noun} {name[:100]!r}. Available: {', '.join(self)}. Install "
                f"the package that does, with an entry point of the group {self._group}."
            )
        packages = ", ".join(str(entry.dist and entry.dist.name) for entry in found)
        if len(found) > 1:
            raise MissingPlugin(
                f"Several packages provide the {self._noun} {name!r}: {packages}. Uninstall all but one."
            )
        try:
            loaded: Item = found[0].load()
        except Exception as error:  # another package's code
            raise MissingPlugin(
                f"The {self._noun} {name!r} of {packages} cannot be imported: {error}. Update or uninstall the package."
            ) from error
        return loaded

    def _installed(self) -> Iterable[Any]:
        from importlib.metadata import entry_points  # reads all installed packages: only for unknown names and lists

        return entry_points(group=self._group)
