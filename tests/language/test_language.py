"""The check of names and docstrings: it accepts the packages, and reports each kind of violation."""

from pathlib import Path

import language
import pytest

SOUND = '"""Models by name."""\n\nLIMIT = 3\n"""Largest number of models."""\n'


def package(folder: Path, **modules: str) -> language.Package:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return language.Package("toy", folder)


@pytest.mark.parametrize("own", language.packages(), ids=lambda own: own.name)
def test_packages_keep_to_the_rules(own: language.Package) -> None:
    assert language.faults(own) == []


def test_sound_module_has_no_faults(tmp_path: Path) -> None:
    assert language.faults(package(tmp_path, models=SOUND)) == []


@pytest.mark.parametrize(
    "text",
    [
        '"""What models are called."""\n',
        'LIMIT = 3\n"""Of the models."""\n',
        'def build() -> None:\n    """Whether to build."""\n',
        'class Model:\n    size: int\n    """How large it is."""\n',
    ],
    ids=["module", "constant", "function", "attribute"],
)
def test_dependent_docstring_is_reported(text: str, tmp_path: Path) -> None:
    faults = language.faults(package(tmp_path, models=text))
    assert len(faults) == 2 and "docstrings" in faults[0]


@pytest.mark.parametrize(
    "text",
    [
        "class Lesson:\n    pass\n",
        "picture = 3\n",
        "# grey images\n",
        "SteadyScale = 1\n",
        "user_asked = 3\n",
        "def _told() -> None: ...\n",
        "complaint = 2\n",
        "def look_closer() -> None: ...\n",
    ],
)
def test_retired_name_is_reported(text: str, tmp_path: Path) -> None:
    assert len(language.faults(package(tmp_path, models=text))) == 1


@pytest.mark.parametrize("name", ["page.html", "page.js", "page.css"])
def test_retired_name_in_a_page_is_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("#told {}\n")
    assert len(language.faults(package(tmp_path, models=SOUND))) == 1


def test_module_with_a_retired_name_is_reported(tmp_path: Path) -> None:
    assert len(language.faults(package(tmp_path, surgery=SOUND))) == 1


def test_class_that_is_defined_twice_is_reported(tmp_path: Path) -> None:
    faults = language.faults(package(tmp_path, one="class Layer:\n    pass\n", two="class Layer:\n    pass\n"))
    assert len(faults) == 1 and "class Layer" in faults[0]


def test_module_name_that_occurs_twice_is_reported(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "models.py").write_text(SOUND)
    faults = language.faults(package(tmp_path, models=SOUND))
    assert len(faults) == 1 and "module models" in faults[0]
