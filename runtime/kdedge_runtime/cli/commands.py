"""What `kdedge-run` does instead of answering a source: its verbs, their options and their outcome.

They are options of the one command, so that a device has one command to know. What a verb does not use is refused.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from kdedge_runtime.errors import KdedgeError

__all__ = ["add_soak", "add_verbs", "check_verb", "perform"]

_USED: dict[str, frozenset[str]] = {
    "self_test": frozenset({"model", "require_signature", "device", "threads", "provider", "json"}),
    "bench": frozenset({"model", "require_signature", "device", "threads", "provider", "json"}),
    "doctor": frozenset(),
    "devices": frozenset(),
}
"""By verb, the other arguments that it reads."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600}


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add the verbs to the parser of the command."""
    group = parser.add_argument_group("instead of answering a source (also on a device that has only this package)")
    verbs = group.add_mutually_exclusive_group()
    verbs.add_argument(
        "--self-test",
        action="store_true",
        help="run MODEL on its golden frames: are outputs, latency and memory as they have to be here? Exit 4 if not",
    )
    verbs.add_argument(
        "--bench", action="store_true", help="measure MODEL, and the fp32 or int8 file beside it, with and without map"
    )
    verbs.add_argument("--doctor", action="store_true", help="print what a helper has to know of this machine; advise")
    verbs.add_argument(
        "--devices",
        nargs="?",
        const="all",
        metavar="NAME",
        help="list the device profiles; print one with its reasons; detect: which machine this is",
    )
    group.add_argument("--json", action="store_true", help="one JSON object (with --self-test and --bench)")


def add_soak(parser: argparse.ArgumentParser) -> None:
    """Add the option that judges a run."""
    parser.add_argument(
        "--soak",
        type=_duration_s,
        metavar="TIME",
        help="run for this long (30s, 10m, 24h), then judge memory, open files, drops and age; exit 4 if they grew",
    )


def check_verb(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str | None:
    """The verb that was asked for; None where a source is to be answered.

    Raises:
        SystemExit: something is missing, or given that the verb does not read (2).
    """
    verb = next((name for name in _USED if getattr(arguments, name)), None)
    if verb is None:
        if arguments.model is None:
            parser.error("the following arguments are required: MODEL")
        if arguments.source is None and arguments.device is None:
            parser.error("the following arguments are required: --source, or --device for its camera")
        if arguments.json:
            parser.error("--json goes with --self-test or --bench; answers go to --jsonl FILE")
        if arguments.view is None:
            if arguments.token is not None:
                parser.error("--token is what browsers show to the view: it goes with --view")
            if arguments.tls is not None:
                parser.error("--tls is for the view: it goes with --view")
            if arguments.feedback is not None:
                parser.error("feedback is given in the browser: --feedback goes with --view")
        return None
    flag = f"--{verb.replace('_', '-')}"
    if "model" in _USED[verb] and arguments.model is None:
        parser.error(f"{flag} needs a MODEL")
    for name, value in vars(arguments).items():
        if value != parser.get_default(name) and name not in {verb, *_USED[verb]}:
            odd = "MODEL" if name == "model" else "--" + name.removesuffix("_name").replace("_", "-")
            parser.error(f"{flag} does not use {odd}")
    return verb


def perform(verb: str, arguments: argparse.Namespace) -> KdedgeError | None:
    """Do what a verb says and print the outcome on stdout.

    Returns:
        Why it went wrong: a check that failed, with all of them printed. None if it did not.

    Raises:
        KdedgeError: the model or the device is not usable, or there is nothing to print.
    """
    # Not at the top: they load onnxruntime, which may be what is broken.
    if verb == "doctor":
        from kdedge_runtime.cli.machine_commands import print_diagnosis

        print_diagnosis()
    elif verb == "devices":
        from kdedge_runtime.cli.machine_commands import print_devices

        print_devices(arguments.devices)
    else:
        from kdedge_runtime.cli.model_commands import Trial, print_bench, print_self_test

        trial = Trial(
            Path(arguments.model),
            device=arguments.device or "auto",
            threads=arguments.threads,
            provider=arguments.provider,
            signer=arguments.require_signature,
            as_json=arguments.json,
        )
        act: Callable[[Trial], KdedgeError | None] = print_self_test if verb == "self_test" else print_bench
        return act(trial)
    return None


def _duration_s(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30s, 10m or 24h")
    return float(match[1]) * _UNITS_S[match[2]]
