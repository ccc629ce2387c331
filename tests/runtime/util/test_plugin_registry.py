"""Registry of implementations: built in, or from the entry points of an installed package."""

import sys
from pathlib import Path

import pytest

from kdedge_runtime.errors import MissingDependency
from kdedge_runtime.util.plugin_registry import MissingPlugin, Registry

GROUP = "kdedge_runtime.test_registry"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with one entry point of the group."""
    package = tmp_path / "extra-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{GROUP}]\nextra = extra_module:VALUE\n")
    (tmp_path / "extra_module.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_built_in_item_is_imported_on_first_use() -> None:
    sys.modules.pop("colorsys", None)
    registry: Registry[object] = Registry("color", GROUP, {"color": "colorsys:ONE_THIRD"})
    assert list(registry) == ["color"] and "colorsys" not in sys.modules
    assert registry["color"] == pytest.approx(1 / 3)


def test_installed_package_adds_an_item(installed: None) -> None:
    registry: Registry[int] = Registry("color", GROUP, {"color": "colorsys:ONE_THIRD"})
    assert list(registry) == ["color", "extra"]
    assert registry["extra"] == 7


def test_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    registry: Registry[int] = Registry("color", GROUP, {"red": "colorsys:ONE_THIRD"})
    assert "extra" not in registry
    with pytest.raises(MissingPlugin, match=rf"color 'extra'.*red.*{GROUP}") as caught:
        registry["extra"]
    assert isinstance(caught.value, MissingDependency)


def test_package_that_cannot_be_imported_is_named(installed: None, tmp_path: Path) -> None:
    (tmp_path / "extra_module.py").write_text("import a_module_that_does_not_exist\n")
    sys.modules.pop("extra_module", None)
    registry: Registry[int] = Registry("color", GROUP)
    with pytest.raises(MissingPlugin, match=r"color 'extra' of extra cannot be imported.*does_not_exist"):
        registry["extra"]


def test_name_of_two_packages_is_an_error(installed: None, tmp_path: Path) -> None:
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text(f"[{GROUP}]\nextra = extra_module:VALUE\n")
    registry: Registry[int] = Registry("color", GROUP)
    with pytest.raises(MissingPlugin, match=r"Several packages.*(extra, other|other, extra)"):
        registry["extra"]
