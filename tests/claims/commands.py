"""Find commands in Markdown, and check them against the command line, the scripts and the Makefile."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from kdedge.cli.app import app
from kdedge_runtime.cli.main import SUBCOMMANDS, build_parser

ROOT = Path(__file__).parents[2]
_ON_DEVICE = rf"(?:kdedge-run|kdedge run)(?: (?:{'|'.join(SUBCOMMANDS)})\b)?"
_COMMAND = re.compile(rf"\b({_ON_DEVICE}|kdedge [a-z]+(?: export)?)\b([^`\n#]*)")
_SCRIPT = re.compile(r"\bpython (tests/\S+\.py)([^`\n#]*)")
_TEST = re.compile(r"\bpytest (tests/[^\s:]+\.py)(?:::(\w+))?")
_TARGET = re.compile(r"\bmake ([a-z0-9-]+)")


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yield each kdedge command in a page's code, and the rest of its line."""
    text = page.replace("\\|", "|")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for code in (*blocks, *(span.replace("\n", " ") for span in spans)):
        yield from _COMMAND.findall(code)


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """Return all option names of a command."""
    if re.fullmatch(_ON_DEVICE, command):
        name = command.split()[-1]
        parser = build_parser(name=name if name in SUBCOMMANDS else None)
        return frozenset(option for action in parser._actions for option in action.option_strings)
    found = _kdedge()
    for word in command.split()[1:]:
        found = getattr(found, "commands", {}).get(word, found)
    return frozenset(name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts))


@functools.cache
def _kdedge() -> Any:
    """Build kdedge's command line once, which takes long."""
    return typer.main.get_command(app)


def objections(command: str, rest: str) -> list[str]:
    """Return the problems of a kdedge command: an unknown command or unknown options."""
    if not command.startswith("kdedge-run") and command.split()[1] not in getattr(_kdedge(), "commands", {}):
        return [f"{command} is not a command"]
    unknown = _options(rest) - options_of(command)
    return [f"{command} does not take {', '.join(sorted(unknown))}"] if unknown else []


def line_objections(line: str) -> list[str]:
    """Return the problems of a command line: unknown commands, options, scripts, tests and targets."""
    found = [problem for command, rest in _COMMAND.findall(line) for problem in objections(command, rest)]
    for script, rest in _SCRIPT.findall(line):
        if not (ROOT / script).is_file():
            found.append(f"there is no {script}")
            continue
        text = (ROOT / script).read_text("utf-8")
        found += [f"{script} does not take {option}" for option in sorted(_options(rest)) if f'"{option}"' not in text]
    for file, name in _TEST.findall(line):
        if not (ROOT / file).is_file() or f"def {name or 'test_'}" not in (ROOT / file).read_text("utf-8"):
            found.append(f"there is no test {file}::{name}" if name else f"there is no test {file}")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in _TARGET.findall(line):
        if not re.search(rf"^{target}:", makefile, re.MULTILINE):
            found.append(f"the Makefile has no target {target}")
    if not any(pattern.search(line) for pattern in (_COMMAND, _SCRIPT, _TEST, _TARGET)):
        found.append(f"no command of kdedge, script, test or target: {line}")
    return found


def _options(rest: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", rest))
