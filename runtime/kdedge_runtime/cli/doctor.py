"""Command `doctor`: print an environment report. It does not import onnxruntime, which may be the broken part."""

import argparse
import sys

from kdedge_runtime.cli.command import Command

__all__ = ["COMMAND", "print_report"]


def print_report() -> None:
    """Print the environment report to stdout and advice to stderr."""
    from kdedge_runtime.diagnostics.environment import collect_environment

    environment = collect_environment()
    sys.stdout.write(f"{environment.block()}\n")
    for sentence in environment.advice():
        sys.stderr.write(f"advice: {sentence}\n")


def _execute(arguments: argparse.Namespace) -> None:
    print_report()


COMMAND = Command("doctor", "", "print an environment report for bug reports, with advice", _execute)
