"""Find the figures on a Markdown page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Statement", "statements"]

_START = r"(?<![\w.,/-])"
_NUMBER = rf"{_START}\d[\d,]*(?:\.\d+)?"
_WORD = r"\b(?:two|three|four|five|six|seven|eight|nine|ten|twenty|thirty)"
_UNIT = r"(?:%|×(?! ?\d)|(?:ms|points?|minutes?|hours?|times|nats|M|frames a second)\b|[kMG]B\b)"
_NAMED = r"(?<!Python )(?<!CC BY )(?<!Apache-)(?<!onnxruntime )(?<!PyTorch )(?<!BT\.)"
"""Prefixes of version numbers."""
_FIGURE = re.compile(
    rf"(?:{_NUMBER}|{_WORD})[ -]?{_UNIT}|{_NUMBER}e-?\d+|{_NUMBER} ?±|{_NAMED}{_START}\d+\.\d+(?![\w.]*\.\d)"
    rf"|{_START}\d+/\d+(?![\w/])"
)
_FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*[-*] |\d+\. |#)|(?<=[^|])\n(?=\|)")
_SENTENCE = re.compile(r"(?<=[.:?!)])\s+(?=[A-Z`\[(¹²³])")


@dataclass(frozen=True)
class Statement:
    """Sentence, table or code comment with at least one figure."""

    section: str
    """Heading above the statement."""
    text: str
    """Statement on one line, without emphasis and link targets."""
    figures: tuple[str, ...]


def statements(page: str) -> Iterator[Statement]:
    """Yield each statement of a page, in order.

    A figure is a number with a unit, with a decimal point or with an exponent, or a fraction. Code is excluded, except
    comments after `#`. Version numbers are not figures.
    """
    section = ""
    for block in _BLOCK.split(_FENCE.sub(_comments, page)):
        if block.startswith("#"):
            heading, _, block = block.partition("\n")
            section = heading.lstrip("# ").strip()
        for text in _sentences(block):
            if figures := tuple(match[0] for match in _FIGURE.finditer(text)):
                yield Statement(section, text, figures)


def _comments(fence: re.Match[str]) -> str:
    return "\n\n".join(line.partition(" # ")[2] for line in fence[1].splitlines() if " # " in line)


def _sentences(block: str) -> list[str]:
    plain = " ".join(re.sub(r"\]\([^)]*\)", "]", block).replace("*", "").split())
    return [plain] if plain.startswith("|") else _SENTENCE.split(plain)
