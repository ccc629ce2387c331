"""Commands without a model: environment report and device profiles. They do not import onnxruntime."""

import sys

from kdedge_runtime.devices import load_profile, profile_names, profile_text
from kdedge_runtime.devices.detection import detect_machine, profile_for

__all__ = ["print_devices", "print_diagnosis"]


def print_diagnosis() -> None:
    """Print the environment report to stdout and advice to stderr."""
    from kdedge_runtime.diagnostics.environment import collect_environment

    diagnosis = collect_environment()
    sys.stdout.write(f"{diagnosis.block()}\n")
    for sentence in diagnosis.advice():
        sys.stderr.write(f"advice: {sentence}\n")


def print_devices(what: str) -> None:
    """Print all profiles (`all`), this machine (`detect`), or one profile with its sources.

    Raises:
        UsageError: there is no profile with this name.
    """
    if what == "detect":
        _print_detected()
    elif what == "all":
        sys.stdout.write(_table())
    else:
        sys.stdout.write(profile_text(what))


def _print_detected() -> None:
    from kdedge_runtime.diagnostics.environment import check_onnxruntime

    machine = detect_machine()
    profile = profile_for(machine)
    rows = machine.rows() | {
        "onnxruntime": check_onnxruntime().told(),
        "profile": f"{profile.name} ({profile.description})",
    }
    width = max(len(name) for name in rows)
    sys.stdout.write("".join(f"{name:{width}}  {value}\n" for name, value in rows.items()))
    if profile.boards:  # profiles of known boards have a camera
        sys.stderr.write(f"\nNext: kdedge-run MODEL --device {profile.name} --source {profile.camera}\n")


def _table() -> str:
    header = ("profile", "cores", "threads", "RAM MB", "instructions", "int8", "latency ms", "for")
    rows = [header]
    for name in profile_names():
        profile = load_profile(name)
        quantization, latency_ms = profile.quantization, profile.budgets.latency_ms
        pays = {True: "pays", False: "does not pay", None: "measure"}[quantization.int8_pays]
        bits = f"{quantization.activations}/{'7' if quantization.reduce_range else '8'} bit"
        rows.append(
            (
                name,
                str(profile.cores or "–"),
                str(profile.threads or "all"),
                f"{profile.ram_mb:,}" if profile.ram_mb else "–",
                " ".join(profile.instructions) or "–",
                f"{pays}, {bits}",
                f"{latency_ms:g}" if latency_ms else "–",
                profile.description,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = (
        "  ".join(position.ljust(width) for position, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "".join(f"{line}\n" for line in lines)
