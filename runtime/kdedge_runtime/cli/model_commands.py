"""Commands with a model: self-test and benchmark."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort

from kdedge_runtime.bundle import verified_model_files
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.devices.detection import detect_machine, find_profile
from kdedge_runtime.diagnostics.benchmark import BenchmarkResult, find_counterpart, run_benchmark, unsupported_reason
from kdedge_runtime.diagnostics.checklist import checklist
from kdedge_runtime.diagnostics.self_test import advice, self_test
from kdedge_runtime.errors import ValidationFailed
from kdedge_runtime.model import Model, available_providers, is_bundle
from kdedge_runtime.model_source import open_model
from kdedge_runtime.util.printable import printable_json, printable_lines

__all__ = ["BenchOptions", "int8_verdict", "print_bench", "print_self_test"]

_PAYS_BELOW = 0.95
"""Latency ratio to fp32 below which int8 is recommended; a smaller gain does not justify the rounding."""


@dataclass(frozen=True)
class BenchOptions:
    """Model and settings of a self-test or benchmark."""

    path: Path
    """Model file or bundle."""
    device: str = "auto"
    """Device profile; `auto` for this machine."""
    threads: int | None = None
    """Threads per inference; None for the profile's."""
    provider: str | None = None
    """Execution provider; None for the profile's first one that is installed."""
    signer: str | None = None
    """Public key whose signature a bundle must have, or None."""
    as_json: bool = False
    """True prints one JSON object instead of text."""

    @property
    def is_bare(self) -> bool:
        """True if the path is a model file and no signature is required."""
        return not is_bundle(self.path) and self.signer is None


def print_self_test(trial: BenchOptions) -> ValidationFailed | None:
    """Run the self-test and print the result to stdout. For a bundle, test the model that would run.

    Returns:
        The failed checks with advice; None on success.

    Raises:
        KdedgeError: the model, bundle or device cannot be used.
    """
    profile = find_profile(trial.device)
    load = _loader(trial, profile)
    with open_model(trial.path, load, trial.signer, trial.device) as model:
        checks = self_test(model, profile)
    failed = [check.name for check in checks if check.passed is False]
    if trial.as_json:
        record = {"passed": not failed, "device": profile.name, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(printable_json(record) + "\n")
    else:
        sys.stdout.write(printable_lines(f"{model.path.name} on {profile.name}\n{checklist(checks)}\n"))
    if not failed:
        return None
    told = advice(model, checks, detect_machine().instructions)
    return ValidationFailed(f"The self-test failed: {', '.join(failed)}.{f' {told}' if told else ''}")


def print_bench(trial: BenchOptions) -> None:
    """Benchmark a model and its fp32 or int8 counterpart, or both models of a bundle, and print the result to stdout.

    Raises:
        KdedgeError: the board was throttled, or the model, bundle or device cannot be used.
    """
    profile = find_profile(trial.device)
    load = _loader(trial, profile)
    with (
        nullcontext(_pair(trial.path))
        if trial.is_bare
        else verified_model_files(trial.path, trial.signer, trial.device) as files
    ):
        paths = [file for name, file in files.items() if trial.is_bare or name.endswith(".onnx")]
        models = {_format(model): model for model in map(load, paths)}
        measured = run_benchmark(models, progress=_progress)
    if measured.throttling:
        raise unsupported_reason(measured.throttling)
    if trial.as_json:
        sys.stdout.write(printable_lines(measured.to_json()) + "\n")
        return
    count = trial.threads or profile.threads
    used = "1 thread" if count == 1 else f"{count or 'all'} threads"
    provider = next(iter(models.values())).provider
    setup = f"{profile.name}, onnxruntime {ort.__version__}, {provider}, {used}, batch size 1"
    names = ", ".join(model.path.name for model in models.values())
    sys.stdout.write(printable_lines(f"{names}\n{setup}\n{measured.table()}\n"))
    if verdict := int8_verdict(measured, profile):
        sys.stdout.write(f"\n{verdict}\n")


def int8_verdict(measured: BenchmarkResult, profile: DeviceProfile) -> str | None:
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


def _loader(trial: BenchOptions, profile: DeviceProfile) -> Callable[[Path], Model]:
    settings = profile.onnxruntime
    provider = trial.provider or settings.best_provider(available_providers())

    def load(path: Path) -> Model:
        return Model.load(path, threads=trial.threads or profile.threads, provider=provider, spinning=settings.spinning)

    return load


def _pair(path: Path) -> dict[str, Path]:
    """Return a model file and its counterpart, if it exists, by name."""
    other = find_counterpart(path)
    return {path.name: path} | ({other.name: other} if other else {})


def _format(model: Model) -> str:
    return "fp32" if model.metadata.quantization is None else str(model.metadata.quantization.get("weights", "int8"))


def _progress(step: str, done: int, total: int, /) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total} rounds" + ("\n" if done == total else ""))
