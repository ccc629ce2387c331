"""Command `devices`: list the device profiles, print one, or detect this machine's. It does not import onnxruntime."""

import argparse
import sys

from kdedge_runtime.cli.command import Command

__all__ = ["COMMAND", "print_devices"]


def print_devices(name: str | None = None) -> None:
    """Print device profiles to stdout.

    Args:
        name: profile to print with its sources; `detect` prints this machine and its profile, and None a table of all
        profiles.

    Raises:
        UsageError: there is no profile with this name.
    """
    from kdedge_runtime.devices import profile_text

    if name == "detect":
        _print_detected()
    else:
        sys.stdout.write(_table() if name is None else profile_text(name))


def _print_detected() -> None:
    from kdedge_runtime.devices.detection import detect_machine, profile_for
    from kdedge_runtime.diagnostics.environment import check_onnxruntime

    machine = detect_machine()
    profile = profile_for(machine)
    rows = machine.rows() | {
        "onnxruntime": check_onnxruntime().summary(),
        "profile": f"{profile.name} ({profile.description})",
    }
    width = max(len(name) for name in rows)
    sys.stdout.write("".join(f"{name:{width}}  {value}\n" for name, value in rows.items()))
    if profile.boards:  # profiles of known boards have a camera
        sys.stderr.write(f"\nNext: kdedge-run MODEL --device {profile.name} --source {profile.camera}\n")


def _table() -> str:
    from kdedge_runtime.devices import load_profile, profile_names

    header = ("profile", "cores", "threads", "RAM MB", "instructions", "int8", "latency ms", "for")
    rows = [header]
    for name in profile_names():
        profile = load_profile(name)
        quantization, latency_ms = profile.quantization, profile.budgets.latency_ms
        speed = {True: "faster", False: "not faster", None: "measure"}[quantization.int8_is_faster]
        bits = f"{quantization.activations}/{'7' if quantization.reduce_range else '8'} bit"
        rows.append(
            (
                name,
                str(profile.cores or "–"),
                str(profile.threads or "all"),
                f"{profile.ram_mb:,}" if profile.ram_mb else "–",
                " ".join(profile.instructions) or "–",
                f"{speed}, {bits}",
                f"{latency_ms:g}" if latency_ms else "–",
                profile.description,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = (
        "  ".join(position.ljust(width) for position, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="profile to print with its sources; detect: show this machine and its profile (default: list all)",
    )


def _execute(arguments: argparse.Namespace) -> None:
    print_devices(arguments.name)


COMMAND = Command(
    "devices",
    "[NAME]",
    "list the device profiles; NAME prints one with its sources, detect this machine and its profile",
    _execute,
    _add_arguments,
)
