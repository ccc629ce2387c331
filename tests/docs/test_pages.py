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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_python_code_of_a_page_is_an_executed_example(page: Path) -> None:
    for block in python_blocks(page):
        (name,) = re.fullmatch(r'--8<-- "tests/examples/(\w+\.py)"\n', block).groups()  # type: ignore[union-attr]
        assert (ROOT / "tests" / "examples" / name).is_file()


def test_each_example_is_on_a_page() -> None:
    shown = {block for page in PAGES for block in python_blocks(page)}
    examples = {path.name for path in (ROOT / "tests" / "examples").glob("*.py") if not path.name.startswith("test_")}
    assert {f'--8<-- "tests/examples/{name}"\n' for name in examples} == shown != set()


def test_each_loss_term_and_method_is_documented() -> None:
    terms = re.findall(r"^\| `(\w+)` \|", (DOCS / "concepts" / "distillation.md").read_text("utf-8"), re.MULTILINE)
    assert terms == list(LOSS_TERMS)
    methods = set(re.findall(r"`([\w+-]+)`", (DOCS / "how-to" / "saliency-method.md").read_text("utf-8")))
    assert set(SALIENCY_METHODS) <= methods
    (loss,) = [option for option in get_command(app).commands["distill"].params if option.name == "loss"]
    assert re.findall(r"\w+", loss.help.split("(")[1].split(")")[0]) == list(LOSS_TERMS.built_in)


def test_contributing_names_files_that_exist() -> None:
    text = (GITHUB / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`((?:kdedge|export|runtime|tests|devices)/[\w./]+)`", text)
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert len(named) > 20 and missing == []


def test_command_reference_lists_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GITHUB)
    page = importlib.import_module("cli_reference").reference()
    headings = re.findall(r"^## `(.*)`$", page, re.MULTILINE)
    assert headings == [f"kdedge {name}" for name in get_command(app).commands]
    assert "--min-map-correlation" in page and "--cadence" in page and "kdedge run self-test" in page
