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
from kdedge_runtime.util.counts import counted

if TYPE_CHECKING:
    from kdedge_runtime.devices import DeviceProfile
    from kdedge_runtime.diagnostics.benchmark import BenchmarkResult

__all__ = ["COMMAND", "precision_verdict", "print_bench"]


def print_bench(options: ModelOptions) -> None:
    """Benchmark a model in each precision beside it or in a bundle, and print the result to stdout.

    Raises:
        KdedgeError: the board was throttled, or the model, bundle or device cannot be used.
    """
    import onnxruntime as ort

    from kdedge_runtime.candidate import Candidate
    from kdedge_runtime.devices.detection import find_profile
    from kdedge_runtime.diagnostics.benchmark import run_benchmark, unsupported_reason
    from kdedge_runtime.util.printable import printable_lines

    profile = find_profile(options.device)
    load = options.loader(profile)
    with _model_files(options) as paths:
        models = {Candidate.of(model): model for model in map(load, paths)}
        measured = run_benchmark(models, progress=_progress)
    if measured.throttling:
        raise unsupported_reason(measured.throttling)
    if options.as_json:
        sys.stdout.write(printable_lines(measured.to_json()) + "\n")
        return
    count = options.threads or profile.threads
    used = counted(count, "thread") if count else "all threads"
    provider = next(iter(models.values())).provider
    setup = f"{profile.name}, onnxruntime {ort.__version__}, {provider}, {used}, batch size 1"
    names = ", ".join(model.path.name for model in models.values())
    sys.stdout.write(printable_lines(f"{names}\n{setup}\n{measured.table()}\n"))
    if verdict := precision_verdict(measured, profile):
        sys.stdout.write(f"\n{verdict}\n")


def precision_verdict(measured: "BenchmarkResult", profile: "DeviceProfile") -> str | None:
    """Return the recommended model file, compared with the profile's expectation; None unless two were measured."""
    from kdedge_runtime.precision import FP32, PRECISIONS, fastest

    ratios = {timing.name: timing.ratio for timing in measured.timings if timing.name in PRECISIONS}
    others = [PRECISIONS[name] for name in PRECISIONS if name in ratios and name != FP32.name]
    if FP32.name not in ratios or not others:
        return None
    chosen, found = fastest(ratios), []
    for precision in others:
        share = ratios[precision.name] / ratios[FP32.name]
        expected = profile.quantization.is_faster(precision)
        compared = ""
        if expected is not None:
            faster = fastest({FP32.name: 1.0, precision.name: share}) == precision.name
            compared = f", {'as' if faster == expected else 'unlike'} the profile {profile.name} expects"
        found.append(f"{precision.name} takes {share:.2f} of fp32's time here{compared}")
    return f"{'; '.join(found)}: use the {chosen} file."


@contextmanager
def _model_files(options: ModelOptions) -> Iterator[list[Path]]:
    """Yield a model file and its other precisions beside it, or the verified models of a bundle."""
    from kdedge_runtime.bundle import verified_model_files
    from kdedge_runtime.model import is_bundle
    from kdedge_runtime.precision import find_variants

    if options.signer is None and not is_bundle(options.path):
        yield [options.path, *find_variants(options.path)]
        return
    with verified_model_files(options.path, options.signer, options.device) as files:
        yield [file for name, file in files.items() if name.endswith(".onnx")]


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
    "measure the latency with and without map, and in each precision",
    _execute,
    _add_arguments,
)
