"""The verbs that need a model: the self-test and the benchmark."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import onnxruntime as ort

from kdedge_runtime.bench import Bench, bench, companion, refusal
from kdedge_runtime.checks import checklist
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.devices.detect import detect_machine, find_profile
from kdedge_runtime.errors import ValidationFailed
from kdedge_runtime.model import Model, available_providers
from kdedge_runtime.self_test import advice, self_test

__all__ = ["int8_verdict", "print_bench", "print_self_test"]

_PAYS_BELOW = 0.95
"""Of fp32's time; a gain that is smaller is not worth what int8 rounds away."""


def print_self_test(
    path: str, *, device: str, threads: int | None, provider: str | None, as_json: bool
) -> ValidationFailed | None:
    """Print how a model does on this machine, on stdout.

    Args:
        path: the model file.
        device: the profile whose budgets apply; `auto` is that of this machine.
        threads: for one inference; None takes the profile's.
        provider: None takes the first of the profile's that is installed.
        as_json: one JSON object instead of a list.

    Returns:
        What failed, with advice; None if nothing did.

    Raises:
        KdedgeError: the model or the device is not usable.
    """
    profile = find_profile(device)
    model = _load(path, profile, threads, provider)
    checks = self_test(model, profile)
    failed = [check.name for check in checks if check.passed is False]
    if as_json:
        record = {"passed": not failed, "device": profile.name, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{model.path.name} on {profile.name}\n{checklist(checks)}\n")
    if not failed:
        return None
    told = advice(model, checks, detect_machine().instructions)
    return ValidationFailed(f"The self-test failed: {', '.join(failed)}.{f' {told}' if told else ''}")


def print_bench(path: str, *, device: str, threads: int | None, provider: str | None, as_json: bool) -> None:
    """Print what a model and the fp32 or int8 file beside it cost here, on stdout; arguments as above.

    Raises:
        KdedgeError: the board held itself back, or the model or the device is not usable.
    """
    profile = find_profile(device)
    paths = [Path(path)]
    if other := companion(paths[0]):
        paths.append(other)
    models = {_format(model): model for model in (_load(str(one), profile, threads, provider) for one in paths)}
    measured = bench(models, progress=_progress)
    if measured.throttling:
        raise refusal(measured.throttling)
    if as_json:
        sys.stdout.write(measured.to_json() + "\n")
        return
    first = next(iter(models.values()))
    count = threads or profile.threads
    used = "1 thread" if count == 1 else f"{count or 'all'} threads"
    setup = f"{profile.name}, onnxruntime {ort.__version__}, {first.provider}, {used}, one image a run"
    sys.stdout.write(f"{', '.join(one.name for one in paths)}\n{setup}\n{measured.table()}\n")
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


def _load(path: str, profile: DeviceProfile, threads: int | None, provider: str | None) -> Model:
    settings = profile.onnxruntime
    wanted = provider or settings.best_provider(available_providers())
    return Model.load(path, threads=threads or profile.threads, provider=wanted, spinning=settings.spinning)


def _format(model: Model) -> str:
    return "fp32" if model.metadata.quantization is None else str(model.metadata.quantization.get("weights", "int8"))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total} rounds" + ("\n" if done == total else ""))
