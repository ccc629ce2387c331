"""What the pages for people say can be typed and followed: commands with their options, links with their headings."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from kdedge.cli.app import app
from kdedge_runtime.cli import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name / "README.md" for name in ("", "kdedge", "export", "runtime", "tests/benchmarks")]
_COMMAND = re.compile(r"\b(kdedge-run|kdedge [a-z]+(?: export| detect)?)\b([^`\n#]*)")


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """Command and the rest of its line, of all code on a page."""
    text = page.read_text("utf-8").replace("\\|", "|")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for code in (*blocks, *(span.replace("\n", " ") for span in spans)):
        yield from _COMMAND.findall(code)


def options_of(command: str) -> set[str]:
    """All option names that a command takes."""
    if command in ("kdedge-run", "kdedge run"):
        return {name for action in build_parser()._actions for name in action.option_strings}
    found = typer.main.get_command(app)
    for word in command.split()[1:]:
        found = getattr(found, "commands", {}).get(word, found)
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_takes_its_options(page: Path) -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for command, rest in commands(page):
        assert command == "kdedge-run" or command.split()[1] in verbs, f"{command} is no command"
        unknown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest)) - options_of(command)
        assert not unknown, f"{command} does not take {unknown}"


def test_there_are_commands_on_the_first_page() -> None:
    assert {"train", "distill", "export", "validate", "run"} <= {
        command.split()[1] for command, _ in commands(PAGES[0]) if command != "kdedge-run"
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if heading:
            text = path.read_text("utf-8")
            headings = [re.sub(r"[^\w\- ]", "", line).strip().lower() for line in re.findall(r"^#+ (.*)$", text, re.M)]
            assert heading in [words.replace(" ", "-") for words in headings], target
