"""Commands of `kdedge-run` other than running a source: their options and dispatch.

They are options of one command, so that a device needs only one. Options that a command does not use are rejected.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from kdedge_runtime.errors import KdedgeError

__all__ = ["add_soak", "add_commands", "check_command", "run_command"]

_USED: dict[str, frozenset[str]] = {
    "self_test": frozenset({"model", "require_signature", "device", "threads", "provider", "json"}),
    "bench": frozenset({"model", "require_signature", "device", "threads", "provider", "json"}),
    "doctor": frozenset(),
    "devices": frozenset(),
}
"""Other arguments used by each command."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands to the argument parser."""
    group = parser.add_argument_group("commands instead of running a source (they need only this package)")
    verbs = group.add_mutually_exclusive_group()
    verbs.add_argument(
        "--self-test",
        action="store_true",
        help="run MODEL on its reference frames and check outputs, latency and memory; exit code 4 on failure",
    )
    verbs.add_argument(
        "--bench",
        action="store_true",
        help="measure the latency of MODEL with and without map, and of its fp32 or int8 counterpart",
    )
    verbs.add_argument("--doctor", action="store_true", help="print an environment report for bug reports, with advice")
    verbs.add_argument(
        "--devices",
        nargs="?",
        const="all",
        metavar="NAME",
        help="list the device profiles; NAME: print that profile with its sources; detect: show this machine and its "
        "profile",
    )
    group.add_argument("--json", action="store_true", help="print one JSON object (with --self-test and --bench)")


def add_soak(parser: argparse.ArgumentParser) -> None:
    """Add the soak test option."""
    parser.add_argument(
        "--soak",
        type=_duration_s,
        metavar="TIME",
        help="run for this time (30s, 10m, 24h), then check memory, open files, drops and frame age for growth; exit "
        "code 4 on failure",
    )


def check_command(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str | None:
    """Return the requested command, or None to run a source.

    Raises:
        SystemExit: an argument is missing or not used by the command (code 2).
    """
    verb = next((name for name in _USED if getattr(arguments, name)), None)
    if verb is None:
        if arguments.model is None:
            parser.error("the following arguments are required: MODEL")
        if arguments.source is None and arguments.device is None:
            parser.error("the following arguments are required: --source, or --device for its camera")
        if arguments.json:
            parser.error("--json needs --self-test or --bench; for predictions use --jsonl FILE")
        if arguments.view is None:
            if arguments.token is not None:
                parser.error("--token needs --view")
            if arguments.tls is not None:
                parser.error("--tls needs --view")
            if arguments.feedback is not None:
                parser.error("--feedback needs --view, because feedback is given in the browser")
        return None
    flag = f"--{verb.replace('_', '-')}"
    if "model" in _USED[verb] and arguments.model is None:
        parser.error(f"{flag} needs a MODEL")
    for name, value in vars(arguments).items():
        if value != parser.get_default(name) and name not in {verb, *_USED[verb]}:
            odd = "MODEL" if name == "model" else "--" + name.removesuffix("_name").replace("_", "-")
            parser.error(f"{flag} does not use {odd}")
    return verb


def run_command(verb: str, arguments: argparse.Namespace) -> KdedgeError | None:
    """Run a command and print its result to stdout.

    Returns:
        The error of a failed check, after all checks are printed; None on success.

    Raises:
        KdedgeError: the model or device cannot be used.
    """
    # Imported on demand, because they load onnxruntime, which may be the broken part.
    if verb == "doctor":
        from kdedge_runtime.cli.machine_commands import print_diagnosis

        print_diagnosis()
    elif verb == "devices":
        from kdedge_runtime.cli.machine_commands import print_devices

        print_devices(arguments.devices)
    else:
        from kdedge_runtime.cli.model_commands import BenchOptions, print_bench, print_self_test

        trial = BenchOptions(
            Path(arguments.model),
            device=arguments.device or "auto",
            threads=arguments.threads,
            provider=arguments.provider,
            signer=arguments.require_signature,
            as_json=arguments.json,
        )
        act: Callable[[BenchOptions], KdedgeError | None] = print_self_test if verb == "self_test" else print_bench
        return act(trial)
    return None


def _duration_s(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30s, 10m or 24h")
    return float(match[1]) * _UNITS_S[match[2]]
