"""The verbs that need a model: the self-test and the benchmark."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort

from kdedge_runtime.bundle import sound_files
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.devices.detection import detect_machine, find_profile
from kdedge_runtime.diagnostics.benchmark import Bench, bench, companion, refusal
from kdedge_runtime.diagnostics.checklist import checklist
from kdedge_runtime.diagnostics.self_test import advice, self_test
from kdedge_runtime.errors import ValidationFailed
from kdedge_runtime.model import Model, available_providers, is_bundle
from kdedge_runtime.model_source import opened_model
from kdedge_runtime.util.printable import printable_json, printable_lines

__all__ = ["Trial", "int8_verdict", "print_bench", "print_self_test"]

_PAYS_BELOW = 0.95
"""Of fp32's time; a gain that is smaller is not worth what int8 rounds away."""


@dataclass(frozen=True)
class Trial:
    """What is tried on this machine, and how."""

    path: Path
    """A model file or a bundle."""
    device: str = "auto"
    """The profile that applies; `auto` is that of this machine."""
    threads: int | None = None
    """For one inference; None takes the profile's."""
    provider: str | None = None
    """None takes the first of the profile's that is installed."""
    signer: str | None = None
    """The public key whose signature a bundle must have."""
    as_json: bool = False
    """Print one JSON object instead of text."""

    @property
    def is_bare(self) -> bool:
        """Whether it is to be read as a model file, and nobody has to have signed it."""
        return not is_bundle(self.path) and self.signer is None


def print_self_test(trial: Trial) -> ValidationFailed | None:
    """Print how a model does on this machine, on stdout; of a bundle, the one that would run.

    Returns:
        What failed, with advice; None if nothing did.

    Raises:
        KdedgeError: the model, the bundle or the device is not usable.
    """
    profile = find_profile(trial.device)
    load = _loader(trial, profile)
    with opened_model(trial.path, load, trial.signer, trial.device) as model:
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


def print_bench(trial: Trial) -> None:
    """Print what a model and the fp32 or int8 file beside it, or both of a bundle, cost here, on stdout.

    Raises:
        KdedgeError: the board held itself back, or the model, the bundle or the device is not usable.
    """
    profile = find_profile(trial.device)
    load = _loader(trial, profile)
    with (
        nullcontext(_pair(trial.path))
        if trial.is_bare
        else sound_files(trial.path, trial.signer, trial.device) as files
    ):
        paths = [file for name, file in files.items() if trial.is_bare or name.endswith(".onnx")]
        models = {_format(model): model for model in map(load, paths)}
        measured = bench(models, progress=_progress)
    if measured.throttling:
        raise refusal(measured.throttling)
    if trial.as_json:
        sys.stdout.write(printable_lines(measured.to_json()) + "\n")
        return
    count = trial.threads or profile.threads
    used = "1 thread" if count == 1 else f"{count or 'all'} threads"
    provider = next(iter(models.values())).provider
    setup = f"{profile.name}, onnxruntime {ort.__version__}, {provider}, {used}, one image a run"
    names = ", ".join(model.path.name for model in models.values())
    sys.stdout.write(printable_lines(f"{names}\n{setup}\n{measured.table()}\n"))
    if verdict := int8_verdict(measured, profile):
        sys.stdout.write(f"\n{verdict}\n")


def int8_verdict(measured: Bench, profile: DeviceProfile) -> str | None:
    """Which file to take, and whether the profile expected it; None where not both were measured."""
    ratios = {timing.name: timing.ratio for timing in measured.timings}
    if "fp32" not in ratios or "int8" not in ratios:
        return None
    share = ratios["int8"] / ratios["fp32"]
    pays, expected = share < _PAYS_BELOW, profile.quantization.int8_pays
    found = f"int8 takes {share:.2f} of fp32's time here"
    if expected is None:
        return f"{found}: take the {'int8' if pays else 'fp32'} file."
    agreement = "as" if pays == expected else "otherwise than"
    return f"{found}, {agreement} the profile {profile.name} expects: take the {'int8' if pays else 'fp32'} file."


def _loader(trial: Trial, profile: DeviceProfile) -> Callable[[Path], Model]:
    settings = profile.onnxruntime
    provider = trial.provider or settings.best_provider(available_providers())

    def load(path: Path) -> Model:
        return Model.load(path, threads=trial.threads or profile.threads, provider=provider, spinning=settings.spinning)

    return load


def _pair(path: Path) -> dict[str, Path]:
    """A model file and the one beside it, by their names."""
    other = companion(path)
    return {path.name: path} | ({other.name: other} if other else {})


def _format(model: Model) -> str:
    return "fp32" if model.metadata.quantization is None else str(model.metadata.quantization.get("weights", "int8"))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total} rounds" + ("\n" if done == total else ""))
