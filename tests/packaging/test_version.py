"""The version is written once, in the runtime; all three wheels have it and fit together."""

import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.version import Version

import kdedge
import kdedge_export
import kdedge_runtime

ROOT = Path(__file__).parents[2]
FOLDERS = {"kdedge_runtime": ROOT / "runtime", "kdedge_export": ROOT / "export", "kdedge_distill": ROOT}
VERSION = Version(kdedge_runtime.__version__)


def test_packages_have_one_version() -> None:
    assert kdedge.__version__ == kdedge_export.__version__ == kdedge_runtime.__version__


@pytest.mark.parametrize("name", FOLDERS)
def test_wheel_has_the_version(name: str, tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(FOLDERS[name])).build(directory=str(tmp_path), versions=["standard"])
    assert Path(wheel).name == f"{name}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{name}-{VERSION}.dist-info/METADATA").decode())
    assert metadata["Version"] == str(VERSION)


@pytest.mark.parametrize("name", FOLDERS)
def test_no_other_file_has_the_version(name: str) -> None:
    project = tomllib.loads((FOLDERS[name] / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project and "version" in project["dynamic"]
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text("utf-8")


@pytest.mark.parametrize(("name", "count"), [("kdedge_export", 1), ("kdedge_distill", 6)])
def test_packages_require_each_other_up_to_the_next_minor_version(name: str, count: int) -> None:
    project = tomllib.loads((FOLDERS[name] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [one for each in project.get("optional-dependencies", {}).values() for one in each if "distill" not in one]
    listed = map(Requirement, [*project["dependencies"], *extras])
    own = [one for one in listed if one.name.startswith("kdedge-")]
    assert len(own) == count
    for requirement in own:
        assert VERSION in requirement.specifier
        assert Version(f"{VERSION.major}.{VERSION.minor + 1}") not in requirement.specifier
