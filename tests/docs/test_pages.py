"""Every page is in the navigation, its Python code is an example, and its lists are complete."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from kdedge.cli.app import app
from kdedge.losses import LOSS_TERMS
from kdedge_runtime.saliency_methods import SALIENCY_METHODS

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
DOCS = GITHUB / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GENERATED = "reference/cli.md"


def python_blocks(page: Path) -> list[str]:
    """Return the Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def leaves(nav: Any) -> list[str]:
    """Return the pages of a navigation tree."""
    if isinstance(nav, str):
        return [nav]
    return [page for item in (nav.values() if isinstance(nav, dict) else nav) for page in leaves(item)]


def test_each_page_is_in_the_navigation_once() -> None:
    nav = leaves(yaml.safe_load((GITHUB / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(nav) == sorted([GENERATED, *(str(page.relative_to(DOCS)) for page in PAGES)])


def test_python_code_of_pages_is_the_executed_examples() -> None:
    """Only reference pages include the files, since GitHub shows an include as it is."""
    paths = [path for path in (ROOT / "tests" / "examples").glob("*.py") if not path.name.startswith("test_")]
    examples = {path.read_text("utf-8"): f'--8<-- "tests/examples/{path.name}"\n' for path in paths}
    reference = {block for page in PAGES if page.parent.name == "reference" for block in python_blocks(page)}
    elsewhere = {block for page in PAGES if page.parent.name != "reference" for block in python_blocks(page)}
    assert reference <= set(examples.values()) and elsewhere <= set(examples)
    assert reference | {examples[block] for block in elsewhere} == set(examples.values()) != set()


def test_each_loss_term_and_method_is_documented() -> None:
    terms = re.findall(r"^\| `(\w+)` \|", (DOCS / "concepts" / "distillation.md").read_text("utf-8"), re.MULTILINE)
    assert terms == list(LOSS_TERMS)
    methods = set(re.findall(r"`([\w+-]+)`", (DOCS / "how-to" / "saliency-method.md").read_text("utf-8")))
    assert set(SALIENCY_METHODS) <= methods
    (loss,) = [option for option in get_command(app).commands["distill"].params if option.name == "loss"]
    assert re.findall(r"\w+", loss.help.split("(")[1].split(")")[0]) == list(LOSS_TERMS.built_in)


@pytest.mark.parametrize(("page", "count"), [("CONTRIBUTING.md", 5), ("docs/how-to/extend.md", 20)])
def test_pages_for_developers_name_files_that_exist(page: str, count: int) -> None:
    text = (GITHUB / page).read_text("utf-8")
    named = re.findall(r"`((?:kdedge|export|runtime|tests|devices)/[\w./]+)`", text)
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert len(named) > count and missing == []


def test_command_reference_lists_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GITHUB)
    page = importlib.import_module("cli_reference").reference()
    headings = re.findall(r"^## `(.*)`$", page, re.MULTILINE)
    assert headings == [f"kdedge {name}" for name in get_command(app).commands]
    assert "--min-map-correlation" in page and "--cadence" in page and "kdedge run self-test" in page
