"""Command line of `kdedge-run`: parses arguments, runs the command and prints errors."""

import argparse
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import NoReturn

from kdedge_runtime import __version__
from kdedge_runtime.cli.commands import add_commands, add_soak, check_command, run_command
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.util.printable import printable, printable_lines

__all__ = ["build_parser", "main"]

_INTERRUPTED = 130
"""Exit code for Ctrl-C, as in a shell."""
_DEFAULT_VIEW = "127.0.0.1:8080"
_EXAMPLES = """examples:
  %(prog)s model.onnx --source 0 --view 8080              camera, with a live view at http://localhost:8080
  %(prog)s model.onnx --source film.mp4 -o seen.mp4       every frame of a video, with its heat map
  %(prog)s model.onnx --source photos/ -o seen/           folder of images
  %(prog)s model.onnx --source rtsp://host/cam --jsonl -  one JSON line per frame
  %(prog)s model.onnx --source csi:0 --cadence every=5    Raspberry Pi camera, every fifth frame explained
  %(prog)s model.onnx --source synthetic: --view          no camera needed
  %(prog)s model.onnx --self-test                         compare outputs with those recorded at export
  %(prog)s model.onnx --source csi:0 --soak 24h           endurance test

exit codes: 0 done, 1 other, 2 usage, 3 a package is missing, 4 a check failed, 5 the source failed"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error on one line, without the full usage."""
        hint = ""
        if message.startswith("unrecognized arguments: ") and Path(message.split()[-1]).is_file():
            hint = " Quote a pattern, so that the shell does not expand it: --source 'photos/*.jpg'."
        self.exit(UsageError.exit_code, f"{self.prog}: error: {message}.{hint} All options: {self.prog} --help\n")


def build_parser(prog: str = "kdedge-run") -> argparse.ArgumentParser:
    """Return the argument parser of the command."""
    parser = _Parser(
        prog=prog,
        description="Run an explained model: one forward pass per frame gives the prediction and its saliency map.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model file (.onnx) or bundle created by `kdedge bundle`"
    )
    parser.add_argument(
        "--source",
        type=_named,
        metavar="SOURCE",
        help="camera (0, usb:0, csi:0), URL (rtsp://…), video, image, folder or quoted pattern of images "
        "('photos/*.jpg'), or synthetic:[CLASS] (default: the camera of --device)",
    )
    parser.add_argument(
        "--frames",
        choices=("all", "latest"),
        help="process every frame in order, or only the newest one (default: all for files, latest for cameras and "
        "streams)",
    )
    parser.add_argument("--loop", action="store_true", help="restart at the end of a file or folder")
    parser.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    add_soak(parser)
    where = parser.add_argument_group("outputs (can be combined)")
    where.add_argument("--jsonl", metavar="FILE", help="write one JSON line per frame; - for standard output")
    where.add_argument(
        "-o",
        "--output",
        type=_named,
        metavar="PATH",
        help="write the overlay to a video (PATH ends in .mp4) or a folder of images",
    )
    where.add_argument(
        "--view",
        nargs="?",
        const=_DEFAULT_VIEW,
        metavar="[HOST:]PORT",
        help=f"serve a live view (default: {_DEFAULT_VIEW}; use 0.0.0.0:PORT for network access with a token)",
    )
    where.add_argument(
        "--token",
        metavar="TOKEN",
        help="token required to access the view (default: $KDEDGE_TOKEN, which is not printed, or a random one if the "
        "view is reachable from the network)",
    )
    where.add_argument(
        "--tls",
        nargs="?",
        const="",
        metavar="PEM",
        help="serve the view over HTTPS with a PEM file of a private key and its certificate (default: a self-signed "
        "certificate for this run)",
    )
    where.add_argument(
        "--feedback",
        type=_named,
        metavar="FILE",
        help="store corrections made in the view, with their frames, in this SQLite file",
    )
    where.add_argument("--show", action="store_true", help="show the overlay in a window")
    when = parser.add_argument_group(
        "explanation schedule (every frame is classified; frames without explanation are not drawn)"
    )
    when.add_argument(
        "--cadence",
        default="always",
        metavar="WHEN",
        help="always (default), every=N, on-change (of the label) or low-confidence[=P] (probability below P; default "
        "0.5)",
    )
    when.add_argument(
        "--method",
        metavar="NAME",
        help="black-box explainer: occlusion, rise, lime, shap or scorecam (default: the map of the model file)",
    )
    when.add_argument(
        "--budget-ms", type=_milliseconds, metavar="MS", help="time limit for --method per frame, in milliseconds"
    )
    when.add_argument(
        "--fps", type=_rate, metavar="N", help="target frame rate: skip explanations before dropping frames"
    )
    how = parser.add_argument_group("inference")
    how.add_argument("--class", dest="class_name", metavar="NAME", help="class to explain (default: the top-1 class)")
    how.add_argument("--opacity", type=_share, metavar="0..1", help="opacity of the heat map (default: 0.6)")
    how.add_argument(
        "--require-signature",
        metavar="PUBLICKEY",
        help="run only bundles signed with this Ed25519 key (hexadecimal, or a PEM file)",
    )
    how.add_argument(
        "--device",
        metavar="NAME",
        help="use threads, provider and spinning of this device profile (see --devices); auto: profile of this machine",
    )
    how.add_argument(
        "--threads", type=_positive, metavar="N", help="threads per inference (default: chosen by onnxruntime)"
    )
    how.add_argument(
        "--provider",
        metavar="NAME",
        help="onnxruntime execution provider; an error if it is not available (default: cpu)",
    )
    add_commands(parser)
    parser.add_argument("--version", action="version", version=f"kdedge-runtime {__version__}")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "kdedge-run") -> int:
    """Run the command.

    Args:
        argv: arguments after the command name; None for those of the process.
        prog: command name in help and error messages.

    Returns:
        The exit code: 0, the error's code (see `kdedge_runtime.errors`), or 130 for an interrupted run.

    Raises:
        SystemExit: with code 2 if the arguments cannot be parsed, with code 0 after `--help` or `--version`.
    """
    parser = build_parser(prog)
    arguments = parser.parse_args(argv)
    verb = check_command(parser, arguments)
    try:
        with _logging_to_stderr():
            failure = _carry_out(arguments) if verb is None else run_command(verb, arguments)
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


def _carry_out(arguments: argparse.Namespace) -> KdedgeError | None:
    # Imported after argument parsing, because onnxruntime and numpy load slowly.
    from kdedge_runtime.cli.run import execute

    return execute(arguments).failure


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


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


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


_rate = _number(lambda value: 0 < value <= 1000, "a number of frames per second, such as 15")
_milliseconds = _number(lambda value: 0 < value < math.inf, "a time in milliseconds, such as 500")
_share = _number(lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _named(text: str) -> str:
    if not text:  # e.g. from an unset shell variable
        raise argparse.ArgumentTypeError("the name is empty")
    return text
