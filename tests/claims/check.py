"""List each figure of README and docs with its command; fail on a figure without one.

`claims.toml` holds two types of entries. `[[measured]]` has `command`, one or several commands, and `needs`, the
machine and the data. `[[chosen]]` has `where`, the file and the name in it that holds a bound or a default. Both have
`statements`: "PAGE: words of the sentence or the table". An entry without a matching statement is an error, too.

    python tests/claims/check.py        # or make claims; exit code 1 if a figure has no command
"""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from commands import ROOT, line_objections
from figures import Statement, statements

__all__ = ["CLAIMS", "PAGES", "Entry", "check", "read_entries", "read_pages"]

PAGES = (
    *("README.md", "kdedge/README.md", "export/README.md", "runtime/README.md", "tests/benchmarks/README.md"),
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / ".github").rglob("*.md"))),
)
"""Pages whose figures need a command."""
CLAIMS = Path(__file__).with_name("claims.toml")


@dataclass(frozen=True)
class Entry:
    """Source of the figures of some statements."""

    statements: tuple[str, ...]
    """Statements in the form "PAGE: words"."""
    commands: tuple[str, ...] = ()
    needs: str = ""
    where: str = ""
    """FILE:NAME of a chosen value."""

    def covers(self, page: str, statement: Statement) -> bool:
        """Return True if the statement contains the words of one of the entry's statements."""
        return any(_page(words) == page and _words(words) in statement.text for words in self.statements)

    @property
    def source(self) -> str:
        """Commands with their requirements, or the location of a chosen value."""
        return f"{' && '.join(self.commands)}   [{self.needs}]" if self.commands else f"chosen in {self.where}"


def read_entries(text: str) -> list[Entry]:
    """Read the entries of a claims file."""
    content = tomllib.loads(text)
    measured = [
        Entry(tuple(item["statements"]), tuple(_lines(item.get("command", ()))), item.get("needs", ""))
        for item in content.get("measured", ())
    ]
    return measured + [Entry(tuple(item["statements"]), where=item["where"]) for item in content.get("chosen", ())]


def read_pages() -> dict[str, str]:
    """Read the pages, by name."""
    return {name: (ROOT / name).read_text("utf-8") for name in PAGES}


def check(pages: Mapping[str, str], entries: Iterable[Entry]) -> tuple[list[str], list[str]]:
    """Return a line for each statement with its source, and a line for each problem."""
    entries = list(entries)
    found = [(page, statement) for page, text in pages.items() for statement in statements(text)]
    listed, problems = [], []
    for page, statement in found:
        place = f"{page}, {statement.section}: {_short(statement)}"
        covering = [entry for entry in entries if entry.covers(page, statement)]
        listed += [f"{place}\n    {entry.source}" for entry in covering]
        if not covering:
            problems.append(f"no command: {place}\n    {statement.text[:200]}")
    for entry in entries:
        for words in entry.statements:
            if not any(_page(words) == page and _words(words) in statement.text for page, statement in found):
                problems.append(f"no figure matches this entry: {words}")
        problems += _entry_problems(entry)
    return listed, problems


def _entry_problems(entry: Entry) -> list[str]:
    name = entry.statements[0] if entry.statements else "an entry"
    if not entry.where:
        problems = [problem for line in entry.commands for problem in line_objections(line)]
        problems += [] if entry.commands else ["no command"]
        problems += [] if entry.needs else ["it does not state what the command needs"]
        return [f"{name}: {problem}" for problem in problems]
    file, _, constant = entry.where.partition(":")
    if not constant or not (ROOT / file).is_file() or constant not in (ROOT / file).read_text("utf-8"):
        return [f"{name}: {entry.where} does not exist"]
    return []


def _lines(command: str | Iterable[str]) -> Iterable[str]:
    return [command] if isinstance(command, str) else command


def _page(words: str) -> str:
    return words.partition(": ")[0]


def _words(words: str) -> str:
    return words.partition(": ")[2]


def _short(statement: Statement) -> str:
    shown = ", ".join(statement.figures[:6])
    return f"{shown}, … ({len(statement.figures)} figures)" if len(statement.figures) > 6 else shown


def main() -> None:
    listed, problems = check(read_pages(), read_entries(CLAIMS.read_text("utf-8")))
    print("\n".join(listed))
    if problems:
        sys.exit("\n".join(["", *problems, "", f"Add an entry to {CLAIMS.relative_to(ROOT)}, or remove the figure."]))
    print(f"\n{len(listed)} statements with figures, each with a command or a place in the code")


if __name__ == "__main__":
    main()
