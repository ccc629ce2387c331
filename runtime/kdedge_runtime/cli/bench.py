"""Command `bench`: measure the latency of a model."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge_runtime.cli.command import Command
from kdedge_runtime.cli.model_options import (
    ModelOptions,
    add_inference_options,
    add_json_option,
    add_model_argument,
)

if TYPE_CHECKING:
    from kdedge_runtime.devices import DeviceProfile
    from kdedge_runtime.diagnostics.benchmark import BenchmarkResult
    from kdedge_runtime.model import Model

__all__ = ["COMMAND", "int8_verdict", "print_bench"]

_PAYS_BELOW = 0.95
"""Latency ratio to fp32 below which int8 is recommended; a smaller gain does not justify the rounding."""


def print_bench(options: ModelOptions) -> None:
    """Benchmark a model and its fp32 or int8 counterpart, or both models of a bundle, and print the result to stdout.

    Raises:
        KdedgeError: the board was throttled, or the model, bundle or device cannot be used.
    """
    import onnxruntime as ort

    from kdedge_runtime.devices.detection import find_profile
    from kdedge_runtime.diagnostics.benchmark import run_benchmark, unsupported_reason
    from kdedge_runtime.util.printable import printable_lines

    profile = find_profile(options.device)
    load = options.loader(profile)
    with _model_files(options) as paths:
        models = {_format(model): model for model in map(load, paths)}
        measured = run_benchmark(models, progress=_progress)
    if measured.throttling:
        raise unsupported_reason(measured.throttling)
    if options.as_json:
        sys.stdout.write(printable_lines(measured.to_json()) + "\n")
        return
    count = options.threads or profile.threads
    used = "1 thread" if count == 1 else f"{count or 'all'} threads"
    provider = next(iter(models.values())).provider
    setup = f"{profile.name}, onnxruntime {ort.__version__}, {provider}, {used}, batch size 1"
    names = ", ".join(model.path.name for model in models.values())
    sys.stdout.write(printable_lines(f"{names}\n{setup}\n{measured.table()}\n"))
    if verdict := int8_verdict(measured, profile):
        sys.stdout.write(f"\n{verdict}\n")


def int8_verdict(measured: "BenchmarkResult", profile: "DeviceProfile") -> str | None:
    """Return the recommended model file, compared with the profile's expectation; None unless both were measured."""
    ratios = {timing.name: timing.ratio for timing in measured.timings}
    if "fp32" not in ratios or "int8" not in ratios:
        return None
    share = ratios["int8"] / ratios["fp32"]
    pays, expected = share < _PAYS_BELOW, profile.quantization.int8_pays
    found = f"int8 takes {share:.2f} of fp32's time here"
    if expected is None:
        return f"{found}: use the {'int8' if pays else 'fp32'} file."
    agreement = "as" if pays == expected else "unlike"
    return f"{found}, {agreement} the profile {profile.name} expects: use the {'int8' if pays else 'fp32'} file."


@contextmanager
def _model_files(options: ModelOptions) -> Iterator[list[Path]]:
    """Yield a model file and its counterpart, if it exists, or the verified models of a bundle."""
    from kdedge_runtime.bundle import verified_model_files
    from kdedge_runtime.diagnostics.benchmark import find_counterpart
    from kdedge_runtime.model import is_bundle

    if options.signer is None and not is_bundle(options.path):
        counterpart = find_counterpart(options.path)
        yield [options.path] if counterpart is None else [options.path, counterpart]
        return
    with verified_model_files(options.path, options.signer, options.device) as files:
        yield [file for name, file in files.items() if name.endswith(".onnx")]


def _format(model: "Model") -> str:
    return "fp32" if model.metadata.quantization is None else str(model.metadata.quantization.get("weights", "int8"))


def _progress(step: str, done: int, total: int, /) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total} rounds" + ("\n" if done == total else ""))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    add_inference_options(parser, device="auto")
    add_json_option(parser)


def _execute(arguments: argparse.Namespace) -> None:
    print_bench(ModelOptions.from_arguments(arguments))


COMMAND = Command(
    "bench",
    "MODEL",
    "measure the latency with and without map, and of the fp32 or int8 counterpart",
    _execute,
    _add_arguments,
)
