"""Parser of `.ts` files of the UCR and UEA archives.

A header of comments and `@key value` lines ends with `@data`. Every further line is a case: channels separated by
colons, values by commas, and the class at the end. `?` is a missing value. All cases need the same length. Source:
https://www.aeon-toolkit.org/en/stable/api_reference/file_specifications/ts.html.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge_runtime.errors import SourceError
from kdedge_runtime.util.arrays import Floats

__all__ = ["TS_SUFFIX", "TsFile", "is_ts_file", "read_ts"]

TS_SUFFIX = ".ts"
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, eq=False)
class TsFile:
    """Cases of a `.ts` file."""

    problem: str
    """Name of the dataset."""
    labels: tuple[str, ...]
    """Class names in the order of the header."""
    values: Floats
    """Values float32 `[N, T, C]`; NaN where a value is missing."""
    targets: tuple[int, ...]
    """Class indices of the N cases."""


def is_ts_file(path: Path) -> bool:
    """Return True for a `.ts` file of an archive; videos in MPEG transport streams have the same suffix."""
    if path.suffix.lower() != TS_SUFFIX or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"#", b"@")


def read_ts(path: Path) -> TsFile:
    """Parse a `.ts` file of a classification problem.

    Raises:
        SourceError: the file is missing, damaged, or has timestamps, series of several lengths or no classes.
    """
    try:
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read ({error}). Expected a .ts file in UTF-8.") from error
    header = _read_header(path, lines)
    problem, labels, dimensions, steps = _check_header(path, header)
    index = {label: number for number, label in enumerate(labels)}
    cases: list[Floats] = []
    targets: list[int] = []
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        *channels, label = line.strip().split(":")
        if label.strip() not in index:
            raise SourceError(
                f"{path}, line {number}: {label.strip()!r} is not a class. Expected one of {', '.join(labels)}."
            )
        case = _parse_case(path, number, channels)
        dimensions, steps = dimensions or case.shape[1], steps or len(case)
        if case.shape != (steps, dimensions):
            raise SourceError(
                f"{path}, line {number}: {case.shape[1]} channels of {len(case)} steps. Expected {dimensions} of "
                f"{steps} as in the other cases."
            )
        cases.append(case)
        targets.append(index[label.strip()])
    if not cases:
        raise SourceError(f"{path} has no cases after @data. Expected one per line.")
    return TsFile(problem, labels, np.stack(cases), tuple(targets))


def _read_header(path: Path, lines: Iterator[tuple[int, str]]) -> dict[str, list[str]]:
    """Return the words after each key, in lower case, up to `@data`."""
    header: dict[str, list[str]] = {}
    for number, line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not text.startswith("@"):
            raise SourceError(
                f"{path}, line {number}: {text[:40]!r} comes before @data. Expected @key value, or # text."
            )
        key, *words = text[1:].split()
        if key.lower() == "data":
            return header
        header[key.lower()] = words
    raise SourceError(f"{path} has no line @data. Expected a .ts file of the UCR and UEA archives.")


def _check_header(path: Path, header: dict[str, list[str]]) -> tuple[str, tuple[str, ...], int | None, int | None]:
    """Return the name, the classes, and the numbers of channels and steps, if the header has them."""
    if _flag(path, header, "timestamps"):
        raise SourceError(f"{path} has timestamps, which are not supported. Expected @timestamps false.")
    if not _flag(path, header, "equallength", default=True):
        raise SourceError(f"{path} has series of several lengths. Expected @equalLength true: cut or pad them first.")
    if "targetlabel" in header:
        raise SourceError(f"{path} has numbers as targets (@targetLabel). Expected classes: @classLabel true A B.")
    if not _flag(path, header, "classlabel"):
        raise SourceError(f"{path} has no classes. Expected @classLabel true, followed by their names.")
    labels = tuple(header["classlabel"][1:])
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise SourceError(f"{path} has the classes {' '.join(labels) or 'none'}. Expected two or more different ones.")
    dimensions = 1 if _flag(path, header, "univariate") else _count(path, header, "dimensions")
    return " ".join(header.get("problemname", [path.stem])), labels, dimensions, _count(path, header, "serieslength")


def _flag(path: Path, header: dict[str, list[str]], key: str, *, default: bool = False) -> bool:
    words = header.get(key)
    if words is None:
        return default
    if not words or words[0].lower() not in _FLAGS:
        raise SourceError(f"{path}: @{key} is {' '.join(words) or 'empty'}. Expected true or false.")
    return _FLAGS[words[0].lower()]


def _count(path: Path, header: dict[str, list[str]], key: str) -> int | None:
    words = header.get(key)
    if words is None:
        return None
    if len(words) != 1 or not words[0].isdecimal() or int(words[0]) < 1:
        raise SourceError(f"{path}: @{key} is {' '.join(words) or 'empty'}. Expected a number from 1.")
    return int(words[0])


def _parse_case(path: Path, number: int, channels: list[str]) -> Floats:
    """Return the values `[T, C]` of a case."""
    try:
        rows = [
            [float("nan") if value.strip() == "?" else float(value) for value in part.split(",")] for part in channels
        ]
    except ValueError as error:
        raise SourceError(f"{path}, line {number}: {error}. Expected numbers, or ? for a missing value.") from error
    if len({len(row) for row in rows}) != 1:
        lengths = ", ".join(str(len(row)) for row in rows)
        raise SourceError(f"{path}, line {number}: channels of {lengths} steps. Expected the same number in each.")
    return np.array(rows, dtype=np.float32).T
