"""Check the language of the packages and pages against the rules in CONTRIBUTING.

- At most 1% of a package's docstrings open with a word that depends on the declaration, such as What or Of.
- No identifier, module name, sentence, script, style sheet, template or JSON schema contains a retired name.
- A class, and a module, has a name of its own in its package.
- No Markdown page and no TOML file of a device or recipe contains a retired word.
- At most `long_sentences` sentences of the pages, see `rules.toml`, have more than 20 words.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sentences import MAX_WORDS, long_sentences

__all__ = ["Package", "document_faults", "documents", "faults", "main", "packages", "sentence_faults"]

ROOT = Path(__file__).parents[2]
RULES = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
MAX_OPENINGS = 0.01
"""Largest share of docstrings with a dependent opening."""
_PAGE_SUFFIXES = {".css", ".html", ".js", ".json"}
_WORDS = re.compile(r"\b(" + "|".join(RULES["words"]) + r")\b", re.IGNORECASE)
_SHARED_MODULES = {"__init__", "__main__"}


@dataclass(frozen=True)
class Package:
    """Source files of one distribution."""

    name: str
    folder: Path

    @property
    def files(self) -> list[Path]:
        """All Python files, sorted."""
        return sorted(self.folder.rglob("*.py"))

    @property
    def pages(self) -> list[Path]:
        """All scripts, style sheets and templates of web pages, and JSON schemas, sorted."""
        return sorted(path for path in self.folder.rglob("*") if path.suffix in _PAGE_SUFFIXES)


def packages() -> list[Package]:
    """Return the three packages of the checkout."""
    return [
        Package("kdedge", ROOT / "kdedge"),
        Package("kdedge_export", ROOT / "export" / "kdedge_export"),
        Package("kdedge_runtime", ROOT / "runtime" / "kdedge_runtime"),
    ]


def faults(package: Package) -> list[str]:
    """List every violation in a package, as `file:line: text`."""
    found = [*_retired(package), *_shared_names(package)]
    documented = list(_docstrings(package))
    dependent = [(path, line, text) for path, line, text in documented if _opening(text) in RULES["openings"]]
    if len(dependent) > MAX_OPENINGS * len(documented):
        share = len(dependent) / len(documented)
        found.append(f"{package.name}: {share:.1%} of {len(documented)} docstrings have a dependent opening:")
        found += [f"{_shown(path)}:{line}: {text.splitlines()[0]}" for path, line, text in dependent]
    return found


def documents() -> list[Path]:
    """Return the Markdown pages of the checkout, and the TOML files of devices and recipes, sorted."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / ".github").rglob("*.md")]
    for package in packages():
        pages += [package.folder.parent / "README.md", *package.folder.rglob("*.md")]
    settings = [*(ROOT / "devices").rglob("*.toml"), *(ROOT / "kdedge" / "config").rglob("*.toml")]
    return sorted({path for path in [*pages, *settings] if path.is_file()})


def document_faults(paths: Iterable[Path]) -> list[str]:
    """List the retired words of documents, as `file:line: text`."""
    return [
        f"{_shown(path)}:{number}: {found[0]}: {line.strip()[:120]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for found in _WORDS.finditer(line)
    ]


def sentence_faults(paths: Iterable[Path], most: int) -> list[str]:
    """List the long sentences of Markdown pages. Only pages of benchmarks may have some, as many as the baseline.

    Args:
        paths: documents; those that are not Markdown are skipped.
        most: baseline. It must be lowered when sentences were split, so that their number only falls.
    """
    found: dict[bool, list[str]] = {True: [], False: []}
    for path in paths:
        if path.suffix == ".md":
            found[path.parent.name == "benchmarks"] += [
                f"{_shown(path)}: {count} words, {MAX_WORDS} are allowed: {text[:120]}"
                for count, text in long_sentences(path.read_text(encoding="utf-8"))
            ]
    measured, others = found[True], found[False]
    if len(measured) > most:
        return [
            *others,
            f"benchmarks: {len(measured)} long sentences, {most} are allowed; split the new ones:",
            *measured,
        ]
    if len(measured) < most:
        others.append(f"rules.toml: lower long_sentences from {most} to {len(measured)}, since sentences were split")
    return others


def _opening(text: str) -> str:
    word = re.match(r"\W*(\w+)", text)
    return "" if word is None else word[1]


def _docstrings(package: Package) -> Iterator[tuple[Path, int, str]]:
    """Yield every docstring, those of attributes too: a string that stands alone as a statement."""
    for path in package.files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for item in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
                value = (
                    item.value.value if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) else None
                )
                if isinstance(value, str):
                    yield path, item.lineno, value.strip()


def _retired(package: Package) -> Iterator[str]:
    names = re.compile(r"(?<![A-Za-z0-9])(" + "|".join(RULES["identifiers"]) + r")(?![A-Za-z0-9])")
    for path in [*package.files, *package.pages]:
        if (stem := names.search(path.stem)) is not None:
            yield f"{_shown(path)}: module name contains {stem[1]}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for found in (*names.finditer(line), *_WORDS.finditer(line)):
                yield f"{_shown(path)}:{number}: {found[0]}: {line.strip()}"


def _shared_names(package: Package) -> Iterator[str]:
    classes: dict[str, list[Path]] = defaultdict(list)
    modules: dict[str, list[Path]] = defaultdict(list)
    for path in package.files:
        if path.stem not in _SHARED_MODULES:
            modules[path.stem].append(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(path)
    for kind, named in (("class", classes), ("module", modules)):
        for name, places in named.items():
            if len(places) > 1:
                yield f"{package.name}: {kind} {name} is defined in {', '.join(_shown(path) for path in places)}"


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def main() -> int:
    """Print all violations; return 1 if there are any."""
    found = [fault for package in packages() for fault in faults(package)]
    found += [*document_faults(documents()), *sentence_faults(documents(), RULES["long_sentences"])]
    print(*found, sep="\n", end="\n" if found else "")
    print(f"language: {len(found)} violations" if found else "language: names, docstrings and pages keep to the rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
