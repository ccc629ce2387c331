"""Command line of `kdedge-run`: selects the command, parses its arguments, runs it and prints errors."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from kdedge_runtime import __version__
from kdedge_runtime.cli import bench, devices, doctor, enroll, run, self_test, soak
from kdedge_runtime.cli.command import CommandParser
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.util.printable import printable, printable_lines

__all__ = ["SUBCOMMANDS", "build_parser", "main"]

SUBCOMMANDS = {
    command.name: command
    for command in (
        self_test.COMMAND,
        bench.COMMAND,
        soak.COMMAND,
        enroll.COMMAND,
        doctor.COMMAND,
        devices.COMMAND,
    )
}
"""Commands other than running a source, by name."""
_INTERRUPTED = 130
"""Exit code for Ctrl-C, as in a shell."""
_EPILOG = """other commands, each with its own --help (write a file with such a name as ./NAME):
{commands}

examples:
  %(prog)s model.onnx --source 0 --view 8080              camera, with a live view at http://localhost:8080
  %(prog)s model.onnx --source film.mp4 -o seen.mp4       every frame of a video, with its heat map
  %(prog)s model.onnx --source photos/ -o seen/           folder of images
  %(prog)s model.onnx --source rtsp://host/cam --jsonl -  one JSON line per frame
  %(prog)s model.onnx --source csi:0 --cadence every=5    Raspberry Pi camera, every fifth frame explained
  %(prog)s model.onnx --source synthetic: --view          no camera needed
  %(prog)s enroll model.onnx photos/ --name red-valve     add a class, for --classes classes.json
  %(prog)s self-test model.onnx                           compare outputs with those recorded at export
  %(prog)s soak model.onnx --source csi:0 --duration 24h  endurance test

exit codes: 0 done, 1 other, 2 usage, 3 a package is missing, 4 a check failed, 5 the source failed,
130 interrupted by Ctrl-C (a run that is stopped on a source: 0)"""


def build_parser(
    prog: str = "kdedge-run", name: str | None = None, default_model: Path | None = None
) -> argparse.ArgumentParser:
    """Return the argument parser of a command.

    Args:
        prog: name of the program in help and error messages.
        name: name of a subcommand; None for running a source.
        default_model: model file for running a source without one; None requires MODEL.
    """
    if name is not None:
        command = SUBCOMMANDS[name]
        description = f"{command.summary[0].upper()}{command.summary[1:]}."
        parser = CommandParser(f"{prog} {name}", description=description, allow_abbrev=False)
    else:
        command = run.COMMAND
        rows = [(f"{each.name} {each.usage}", each.summary) for each in SUBCOMMANDS.values()]
        parser = CommandParser(
            prog,
            allow_abbrev=False,
            description=command.summary,
            epilog=_EPILOG.format(commands="\n".join(f"  {usage:<19}  {summary}" for usage, summary in rows)),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--version", action="version", version=f"kdedge-runtime {__version__}")
    command.add_arguments(parser)
    if name is None and default_model is not None:
        (model,) = (action for action in parser._actions if action.dest == "model")
        model.nargs, model.default, model.required = "?", str(default_model), False
        model.help = f"{model.help} (default: {default_model.name})"
    parser.set_defaults(execute=command.execute)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "kdedge-run", default_model: Path | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments after the command name; None for those of the process.
        prog: command name in help and error messages.
        default_model: model file for running a source without one; None requires MODEL.

    Returns:
        The exit code: 0, the error's code (see `kdedge_runtime.errors`), or 130 for an interrupted run.

    Raises:
        SystemExit: with code 2 if the arguments cannot be parsed, with code 0 after `--help` or `--version`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = words.pop(0) if words and words[0] in SUBCOMMANDS else None
    arguments = build_parser(prog, name, default_model).parse_args(words)
    try:
        with _logging_to_stderr():
            failure: KdedgeError | None = arguments.execute(arguments)
    except KdedgeError as error:
        failure = error
    except OSError as error:  # e.g. a full disk or missing permissions
        what = error.filename or "An output"
        failure = KdedgeError(f"{what} cannot be read or written: {error.strerror or error}.")
    except KeyboardInterrupt:  # second Ctrl-C
        return _INTERRUPTED
    if failure is None:
        return 0
    sys.stderr.write(f"error: {printable(str(failure))}\n")
    return failure.exit_code


class _PrintableFormatter(logging.Formatter):
    """Log formatter that escapes control characters in message arguments, such as file names."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        if isinstance(record.args, tuple):
            shown.args = tuple(arg if isinstance(arg, int | float) else printable(str(arg)) for arg in record.args)
        return printable_lines(super().format(shown))


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Log the runtime's messages to stderr as plain lines within the block."""
    log = logging.getLogger("kdedge_runtime")
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter())
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
