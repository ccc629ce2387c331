"""Command `self-test`: compare a model with the outputs recorded at export."""

import argparse
import sys
from dataclasses import asdict

from kdedge_runtime.cli.command import Command
from kdedge_runtime.cli.model_options import (
    ModelOptions,
    add_inference_options,
    add_json_option,
    add_model_argument,
)
from kdedge_runtime.errors import ValidationFailed

__all__ = ["COMMAND", "print_self_test"]


def print_self_test(options: ModelOptions) -> ValidationFailed | None:
    """Run the self-test and print the result to stdout. For a bundle, test the model that would run.

    Returns:
        The failed checks with advice; None on success.

    Raises:
        KdedgeError: the model, bundle or device cannot be used.
    """
    from kdedge_runtime.devices.detection import detect_machine, find_profile
    from kdedge_runtime.diagnostics.checklist import checklist
    from kdedge_runtime.diagnostics.device_checks import advice, self_test
    from kdedge_runtime.model_source import open_model
    from kdedge_runtime.util.printable import printable_json, printable_lines

    profile = find_profile(options.device)
    with open_model(options.path, options.loader(profile), options.signer, options.device) as model:
        checks = self_test(model, profile)
    failed = [check.name for check in checks if check.passed is False]
    if options.as_json:
        record = {"passed": not failed, "device": profile.name, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(printable_json(record) + "\n")
    else:
        sys.stdout.write(printable_lines(f"{model.path.name} on {profile.name}\n{checklist(checks)}\n"))
    if not failed:
        return None
    hint = advice(model, checks, detect_machine().instructions)
    return ValidationFailed(f"The self-test failed: {', '.join(failed)}.{f' {hint}' if hint else ''}")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    add_inference_options(parser, device="auto")
    add_json_option(parser)


def _execute(arguments: argparse.Namespace) -> ValidationFailed | None:
    return print_self_test(ModelOptions.from_arguments(arguments))


COMMAND = Command(
    "self-test",
    "MODEL",
    "check outputs on the reference frames in MODEL, latency and memory; exit code 4 on failure",
    _execute,
    _add_arguments,
)
