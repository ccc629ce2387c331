"""Definition of a command, and types of its arguments. Importing it is fast, so that `--help` is."""

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kdedge_runtime.errors import KdedgeError, UsageError

__all__ = [
    "Command",
    "CommandParser",
    "cosine",
    "duration_s",
    "megabytes",
    "milliseconds",
    "nonempty",
    "positive_integer",
    "rate",
    "unit_interval",
]

_UNITS_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Command:
    """Command of `kdedge-run`."""

    name: str
    usage: str
    """Positional arguments, for the list of commands."""
    summary: str
    """Effect in one line."""
    execute: Callable[[argparse.Namespace], KdedgeError | None]
    """Run the command. Return the error of a failed check or source; raise every other KdedgeError."""
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Add the command's own arguments to its parser."""


class CommandParser(argparse.ArgumentParser):
    """Argument parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error without the full usage, and exit with code 2."""
        hint = ""
        _, _, unknown = message.partition("unrecognized arguments: ")
        if unknown and not unknown.startswith("-") and Path(unknown.split()[-1]).is_file():
            hint = " Quote a pattern, so that the shell does not expand it: --source 'photos/*.jpg'."
        self.exit(UsageError.exit_code, f"{self.prog}: error: {message}.{hint} All options: {self.prog} --help\n")


def positive_integer(text: str) -> int:
    """Parse an integer from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def nonempty(text: str) -> str:
    """Reject an empty name, e.g. from an unset shell variable."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def duration_s(text: str) -> float:
    """Parse a duration with a unit into seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30s, 10m or 24h")
    return float(match[1]) * _UNITS_S[match[2]]


def _number(is_wanted: Callable[[float], bool], what: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not is_wanted(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return read


rate = _number(lambda value: 0 < value <= 1000, "a number of frames per second, such as 15")
megabytes = _number(lambda value: 1 <= value < math.inf, "a size in MB of 1 or more, such as 500")
milliseconds = _number(lambda value: 0 < value < math.inf, "a time in milliseconds, such as 500")
cosine = _number(lambda value: -1 <= value <= 1, "a number from -1 to 1")
unit_interval = _number(lambda value: 0 <= value <= 1, "a number from 0 to 1")
