"""Every public name of a package resolves, and no module of that name replaces it on import."""

import pkgutil
from types import ModuleType

import pytest

import kdedge
import kdedge_export
import kdedge_runtime


@pytest.mark.parametrize("package", [kdedge, kdedge_export, kdedge_runtime], ids=lambda package: package.__name__)
def test_public_names_resolve(package: ModuleType) -> None:
    modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    assert modules.isdisjoint(package.__all__), "an import of the module would replace the function"
    assert set(package.__all__) >= set(package._HOMES) != set()
    for name in package.__all__:
        assert callable(getattr(package, name)), name
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018
