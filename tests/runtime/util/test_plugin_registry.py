"""Registry of implementations: built in, or from the entry points of an installed package."""

import sys
from pathlib import Path

import pytest

from kdedge_runtime.util.plugin_registry import Registry

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
    registry: Registry[object] = Registry(GROUP, {"color": "colorsys:ONE_THIRD"})
    assert list(registry) == ["color"] and "colorsys" not in sys.modules
    assert registry["color"] == pytest.approx(1 / 3)


def test_installed_package_adds_an_item(installed: None) -> None:
    registry: Registry[int] = Registry(GROUP, {"color": "colorsys:ONE_THIRD"})
    assert list(registry) == ["color", "extra"]
    assert registry["extra"] == 7


def test_unknown_name_is_a_key_error() -> None:
    registry: Registry[int] = Registry(GROUP, {})
    with pytest.raises(KeyError, match="extra"):
        registry["extra"]
