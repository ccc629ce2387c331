"""Commands of README and docs have valid options, links resolve, and repeated tables are equal."""

import re
from pathlib import Path

import pytest
from commands import commands, objections

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec

ROOT = Path(__file__).parents[2]
DOCS = ROOT / ".github" / "docs"
README = ROOT / "README.md"
PAGES = [
    *(ROOT / name / "README.md" for name in ("", "kdedge", "export", "runtime", "tests/benchmarks")),
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
]
GENERATED = {DOCS / "reference" / "cli.md"}
"""Pages that exist only in the site."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_valid_options(page: Path) -> None:
    for command, rest in commands(page.read_text("utf-8")):
        assert not objections(command, rest)


def test_readme_has_commands() -> None:
    found = {command for command, _ in commands(README.read_text("utf-8"))}
    assert {f"kdedge {name}" for name in ("train", "distill", "export", "validate", "run")} <= found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists() or path in GENERATED, target
        if heading and path not in GENERATED:
            text = path.read_text("utf-8")
            headings = [re.sub(r"[^\w\- ]", "", line).strip().lower() for line in re.findall(r"^#+ (.*)$", text, re.M)]
            assert heading in [words.replace(" ", "-") for words in headings], target


def tables(page: Path) -> list[list[list[str]]]:
    """Return the cells of each table of a page, headings first, without bold markup."""
    found = re.findall(r"((?:^\|.*\|\n)+)", page.read_text("utf-8"), re.MULTILINE)
    return [
        [[position.strip() for position in line.replace("**", "")[1:-1].split("|")] for line in table.splitlines()]
        for table in (re.sub(r"^\|[-|]+\|\n", "", table, flags=re.MULTILINE) for table in found)
    ]


def with_heads(page: Path, *heads: str) -> list[list[list[str]]]:
    return [rows for rows in tables(page) if set(heads) <= set(rows[0])]


def test_readme_figures_equal_the_benchmark_table() -> None:
    measured = with_heads(DOCS / "benchmarks" / "distillation.md", "50 images per class")
    assert with_heads(README, "50 images per class") == measured != []


def test_readme_has_one_results_table() -> None:
    assert sum("±" in str(rows) for rows in tables(README)) == 1


@pytest.mark.parametrize(("name", "millions"), [("resnet56", "0.85"), ("resnet8", "0.08")])
def test_readme_parameter_counts(name: str, millions: str) -> None:
    count = sum(parameter.numel() for parameter in build_model(ModelSpec(f"small:{name}", 10), 32).parameters())
    assert f"{count / 1e6:.2f}" == millions
    assert f"{millions} M" in README.read_text("utf-8")
