"""The command `kdedge-run`: parses, calls, prints errors."""

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
from kdedge_runtime.cli.commands import add_soak, add_verbs, check_verb, perform
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.util.printable import printable, printable_lines

__all__ = ["build_parser", "main"]

_INTERRUPTED = 130
"""The exit code of Ctrl-C, as of a shell."""
_DEFAULT_VIEW = "127.0.0.1:8080"
_EXAMPLES = """examples:
  %(prog)s model.onnx --source 0 --view 8080              a camera, watched at http://localhost:8080
  %(prog)s model.onnx --source film.mp4 -o seen.mp4       every frame of a video, with its heat
  %(prog)s model.onnx --source photos/ -o seen/           a folder of pictures
  %(prog)s model.onnx --source rtsp://host/cam --jsonl -  one line of JSON a frame
  %(prog)s model.onnx --source csi:0 --cadence every=5    a Raspberry Pi's camera, every fifth frame explained
  %(prog)s model.onnx --source synthetic: --view          without any camera
  %(prog)s model.onnx --self-test                         does it compute here what it computed where it was exported?
  %(prog)s model.onnx --source csi:0 --soak 24h           does it hold out?

exit codes: 0 done, 1 other, 2 usage, 3 a package is missing, 4 a check failed, 5 the source failed"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; the whole usage would hide it."""
        hint = ""
        if message.startswith("unrecognized arguments: ") and Path(message.split()[-1]).is_file():
            hint = " Quote a pattern, so that the shell does not open it: --source 'photos/*.jpg'."
        self.exit(UsageError.exit_code, f"{self.prog}: error: {message}.{hint} All options: {self.prog} --help\n")


def build_parser(prog: str = "kdedge-run") -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = _Parser(
        prog=prog,
        description="Run an explained model: every frame gets its answer and the reason, in one forward pass.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model file, or a bundle of `kdedge bundle`")
    parser.add_argument(
        "--source",
        type=_named,
        metavar="SOURCE",
        help="a camera (0, usb:0, csi:0), a URL (rtsp://…), a video, a picture, a folder or a quoted pattern of "
        "pictures ('photos/*.jpg'), or synthetic:[CLASS] (default: the camera of --device)",
    )
    parser.add_argument(
        "--frames",
        choices=("all", "latest"),
        help="every frame in order, or only the newest (default: all of files, the latest of cameras and streams)",
    )
    parser.add_argument("--loop", action="store_true", help="begin again at the end of a file or folder")
    parser.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    add_soak(parser)
    where = parser.add_argument_group("where the answers go (any of them together)")
    where.add_argument("--jsonl", metavar="FILE", help="one line of JSON a frame; - is standard output")
    where.add_argument(
        "-o",
        "--output",
        type=_named,
        metavar="PATH",
        help="the overlay: a video (PATH ends in .mp4) or a folder of pictures",
    )
    where.add_argument(
        "--view",
        nargs="?",
        const=_DEFAULT_VIEW,
        metavar="[HOST:]PORT",
        help=f"watch in a browser (default {_DEFAULT_VIEW}; 0.0.0.0:PORT lets the network in, with a token)",
    )
    where.add_argument(
        "--token",
        metavar="TOKEN",
        help="what browsers and programs have to show the view (default: $KDEDGE_TOKEN, which is not printed, or one "
        "made anew where the network can reach it)",
    )
    where.add_argument(
        "--tls",
        nargs="?",
        const="",
        metavar="PEM",
        help="serve the view over HTTPS with a PEM file of a private key and its certificate (default: one made for "
        "this run)",
    )
    where.add_argument(
        "--feedback",
        type=_named,
        metavar="FILE",
        help="keep what people say of the answers in the view, and the frames",
    )
    where.add_argument("--show", action="store_true", help="watch in a window")
    when = parser.add_argument_group("which frames are explained (all are answered; others are not drawn)")
    when.add_argument(
        "--cadence",
        default="always",
        metavar="WHEN",
        help="always (default), every=N, on-change (of the answer), low-confidence[=P] (answers below P; 0.5)",
    )
    when.add_argument(
        "--method",
        metavar="NAME",
        help="ask the model again with parts hidden: occlusion, rise, lime, shap or scorecam (default: the file's map)",
    )
    when.add_argument("--budget-ms", type=_milliseconds, metavar="MS", help="time that such a method may take a frame")
    when.add_argument(
        "--fps", type=_rate, metavar="N", help="keep up with N frames a second: explanations thin before frames drop"
    )
    how = parser.add_argument_group("how the model runs")
    how.add_argument("--class", dest="class_name", metavar="NAME", help="explain this class (default: the top one)")
    how.add_argument("--opacity", type=_share, metavar="0..1", help="how much full heat covers (default: 0.6)")
    how.add_argument(
        "--require-signature",
        metavar="PUBLICKEY",
        help="run a bundle that this Ed25519 key has signed, and nothing else (hexadecimal, or a PEM file)",
    )
    how.add_argument(
        "--device",
        metavar="NAME",
        help="set threads, provider and spinning up for this device (see --devices); auto: for this machine",
    )
    how.add_argument("--threads", type=_positive, metavar="N", help="for one inference (default: onnxruntime's choice)")
    how.add_argument("--provider", metavar="NAME", help="onnxruntime's provider: used, or refused (default: cpu)")
    add_verbs(parser)
    parser.add_argument("--version", action="version", version=f"kdedge-runtime {__version__}")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "kdedge-run") -> int:
    """Run the command.

    Args:
        argv: the arguments after the command's name; None takes those of the process.
        prog: the command's name in help and errors.

    Returns:
        The exit code: 0, that of the error (see `kdedge_runtime.errors`), or 130 for an interrupted run.

    Raises:
        SystemExit: the arguments cannot be parsed (2), or help or version was asked for (0).
    """
    parser = build_parser(prog)
    arguments = parser.parse_args(argv)
    verb = check_verb(parser, arguments)
    try:
        with _logging_to_stderr():
            failure = _carry_out(arguments) if verb is None else perform(verb, arguments)
    except KdedgeError as error:
        failure = error
    except OSError as error:  # a full disk, a folder of somebody else's
        what = error.filename or "An output"
        failure = KdedgeError(f"{what} cannot be read or written: {error.strerror or error}.")
    except KeyboardInterrupt:  # a second Ctrl-C
        return _INTERRUPTED
    if failure is None:
        return 0
    sys.stderr.write(f"error: {printable(str(failure))}\n")
    return failure.exit_code


def _carry_out(arguments: argparse.Namespace) -> KdedgeError | None:
    # Not before the arguments are known to be good: onnxruntime and numpy take longer to load than help to print.
    from kdedge_runtime.cli.run import execute

    return execute(arguments).failure


class _PrintableFormatter(logging.Formatter):
    """Plain lines; strangers' names among the arguments of a message neither steer a terminal nor begin a line."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        if isinstance(record.args, tuple):
            shown.args = tuple(arg if isinstance(arg, int | float) else printable(str(arg)) for arg in record.args)
        return printable_lines(super().format(shown))


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Within the block the runtime's own log goes to stderr as plain lines."""
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
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
    if not text:  # what an unset variable of a shell leaves
        raise argparse.ArgumentTypeError("the name is empty")
    return text
