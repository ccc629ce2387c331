"""Command `soak`: run a model on a source for hours, then check for growth."""

import argparse

from kdedge_runtime.cli.command import Command, duration_s
from kdedge_runtime.cli.run import add_stream_options, run_stream
from kdedge_runtime.errors import KdedgeError

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream_options(parser)
    parser.add_argument(
        "--duration",
        type=duration_s,
        required=True,
        metavar="TIME",
        help="duration in seconds, minutes or hours: 30s, 10m, 24h",
    )
    parser.set_defaults(max_frames=None)


def _execute(arguments: argparse.Namespace) -> KdedgeError | None:
    return run_stream(arguments, arguments.duration)


COMMAND = Command(
    "soak",
    "MODEL",
    "run on a source, then check memory, open files, drops and frame age for growth; exit code 4 on failure",
    _execute,
    _add_arguments,
)
