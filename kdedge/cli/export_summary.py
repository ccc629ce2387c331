"""Summary of `kdedge export`."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdedge.cli.console import flagged, stderr_console
from kdedge.cli.familiarity_line import describe_familiarity
from kdedge.cli.next_command import live_command
from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.missed_bounds import missed_bounds
from kdedge.pipelines.model_export import ExportResult
from kdedge.reports.tradeoff import tradeoff_table
from kdedge_export.export_check import TOLERANCE
from kdedge_export.metrics.confidence import samples_needed
from kdedge_export.quantization import FidelityGoal, Tradeoff
from kdedge_export.validation.saturation_note import saturation_note
from kdedge_runtime.errors import ValidationFailed
from kdedge_runtime.precision import FP32, fastest
from kdedge_runtime.saliency_methods import NO_MAP
from kdedge_runtime.util.counts import grid_text

__all__ = ["print_export", "print_precisions", "check_goal_reached"]


def print_export(result: ExportResult, artifacts: Artifacts, data: str | None, weights: Path | None) -> None:
    """Print the files, their agreement with PyTorch, and the next command to stderr."""
    console = stderr_console()

    def write(line: str) -> None:
        console.print(line, soft_wrap=True)

    if result.problems is not None:
        console.print(flagged("warning", f"calibration: {result.problems}"), soft_wrap=True)
    spec, outputs = result.metadata.input, result.metadata.outputs
    write(f"{result.fp32}  {_megabytes(result.fp32)}, input {spec.summary}")
    if result.weights is not None:
        write(f"  [-] weights: {result.weights.summary}")
    if result.assumed_input is not None:
        write(f"  [-] preprocessing: {result.assumed_input}")
    logits_error = f"relative error {result.logits_error:.0e}{_cause(result.logits_error, 'rounding')}"
    write(f"  [✓] logits match PyTorch ({logits_error}, two inputs)")
    if result.map_error is not None:
        explained = outputs.head if outputs.target_layer is None else f"{outputs.head} head at {outputs.target_layer}"
        positions = f"{outputs.method}, {grid_text(outputs.map_height, outputs.map_width)}, {explained}"
        cause = _cause(result.map_error, "rounding, which also flips activations")
        write(f"  [✓] map matches PyTorch (relative error {result.map_error:.0e}{cause}, two inputs): {positions}")
    if result.fit is not None and result.fit.why_not is None:
        half = f"fitted on {result.fit.samples:,} validation samples"
        write(
            f"  [✓] probabilities calibrated with temperature {result.fit.temperature:.2f}, {half}, which the "
            "calibration error of kdedge validate excludes"
        )
    elif result.fit is not None:
        write(f"  [-] probabilities not calibrated (temperature 1): {result.fit.why_not}")
    if (familiarity := result.metadata.familiarity) is not None:
        write(f"  {describe_familiarity(familiarity)}")
    print_precisions(result, write)
    for path in result.removed:
        write(f"  {path} from an earlier export was removed: it has other weights or another map")
    if any(file.path is None for file in result.quantized.values()):
        return
    if result.metadata.outputs.method == NO_MAP:
        write(f"\nNext: {live_command(result.fastest, spec.example_source)}")
    elif result.metadata.lineage["student"]["weights"] is None:
        write("\nThe weights are random: use this file for benchmarks only.")
    elif artifacts.run is None:
        samples = "DIR" if data is None else shlex.quote(data)
        given = [] if weights is None else ["--weights", str(weights)]
        held = shlex.join(["kdedge", "validate", str(result.fp32), *given])
        write(f"\nNext: {held} --data {samples}")
    elif result.fp32.resolve().parent == artifacts.run.resolve():
        in_its_place = result.fp32.name == "model.onnx"
        write(f"\nNext: {shlex.join(['kdedge', 'validate', artifacts.source if in_its_place else str(result.fp32)])}")
    else:
        write(f"\nNext: {live_command(result.fastest, spec.example_source)}")


def _reason(result: ExportResult) -> str:
    """Return why the fp32 file is recommended although there are others; empty if it is not."""
    if result.fastest != result.fp32:
        return ""
    tradeoffs = {name: file.tradeoff for name, file in result.quantized.items() if file.path is not None}
    missed = [name for name, tradeoff in tradeoffs.items() if tradeoff is not None and missed_bounds(name, tradeoff)]
    if missed:
        return f"; {' and '.join(missed)} would fail validation"
    return f"; {' and '.join(tradeoffs)} saves space, but no time"


def check_goal_reached(result: ExportResult) -> None:
    """Raise if quantization missed its goal.

    Raises:
        ValidationFailed: the goal is missed. The message has the shortfall and possible remedies.
    """
    for name, file in result.quantized.items():
        if file.tradeoff is not None and not file.tradeoff.met:
            raise ValidationFailed(_shortfall(name, file.tradeoff))


def _shortfall(name: str, tradeoff: Tradeoff) -> str:
    found, goal = tradeoff.chosen.fidelity, tradeoff.goal
    missed = []
    if (
        goal.min_map_correlation is not None
        and found.map_pearson is not None
        and found.map_pearson < goal.min_map_correlation
    ):
        missed.append(f"map Pearson {found.map_pearson:.6f} instead of {goal.min_map_correlation:g}")
    if goal.max_drop is not None and found.drop_points > goal.max_drop:
        missed.append(f"a drop of {found.drop_points:.2f} points instead of {goal.max_drop:g}")
    return (
        f"No {name} file was written. The best candidate has {len(tradeoff.chosen.float_layers)} of {tradeoff.layers} "
        f"layers in fp32, with {' and '.join(missed)}. Loosen the goal, calibrate on more samples like those of the "
        "device (--data), or use the fp32 file."
    )


def _cause(error: float, what: str) -> str:
    """Return the accepted cause of an error above the tolerance; empty below it."""
    return f", due to {what}" if error > TOLERANCE else ""


def print_precisions(result: ExportResult, write: Callable[[str], None]) -> None:
    """Print fidelity and latency of the files in other precisions, and the recommended file, line by line."""
    for name in result.quantized:
        _print_precision(result, name, write)
    if any(file.path is not None for file in result.quantized.values()):
        write(f"recommended on machines like this one: {result.fastest}{_reason(result)}")


def _print_precision(result: ExportResult, name: str, write: Callable[[str], None]) -> None:
    file = result.quantized[name]
    if file.tradeoff is not None:
        _print_goal(result, file.tradeoff, write)
    if file.removed is not None:
        write(f"  {file.removed} from an earlier export was removed: it was made for a different goal")
    if file.path is None:
        return
    floats = len(file.note.get("float_layers", ()))
    layers = "" if file.tradeoff is None else f" of {file.tradeoff.layers}"
    kept = f", {floats}{layers} layers in fp32" if floats else ""
    ranges = f", calibration: {file.note['calibration']}" if "calibration" in file.note else ""
    floats_of = "all but the dense weights" if file.note.get("format") == "weights" else "logits and map"
    write(f"{file.path}  {_megabytes(file.path)}, {floats_of} in fp32{kept}{ranges}")
    if file.tradeoff is not None:
        _print_fidelity(name, file.note, file.tradeoff, write)
    if "latency_ms" in file.note:
        _print_latency(name, file.note["latency_ms"], write)


def _print_goal(result: ExportResult, tradeoff: Tradeoff, write: Callable[[str], None]) -> None:
    if tradeoff.goal != FidelityGoal():
        from kdedge.reports.tradeoff_chart import image_path, write_image  # matplotlib loads when it draws

        write("")
        write_image(tradeoff, image_path(result.fp32))
        stderr_console().print(tradeoff_table(tradeoff))
        one = f"one sample is {100 / tradeoff.samples:.2g} points"
        write(
            f"  measured on {tradeoff.samples} training samples that were not used for calibration ({one}): "
            f"{image_path(result.fp32)}"
        )
        if (warning := _unconfirmed(tradeoff)) is not None:
            write(f"  {warning}")


def _print_fidelity(name: str, note: Mapping[str, Any], tradeoff: Tradeoff, write: Callable[[str], None]) -> None:
    fidelity = tradeoff.chosen.fidelity
    maps = "" if fidelity.map_pearson is None else f", map Pearson {fidelity.map_pearson:.4f}"
    arithmetic = note["held_out"]["arithmetic"]
    write(f"  held out: agreement {fidelity.agreement:.1%}{maps} on {tradeoff.samples} training samples ({arithmetic})")
    if (saturated := saturation_note(note)) is not None:
        stderr_console().print(flagged("warning", saturated), soft_wrap=True)
    if faults := missed_bounds(name, tradeoff):
        advice = "To keep layers in fp32: --min-map-correlation 0.98 --max-drop 0.5"
        advice = f". {advice}" if tradeoff.goal == FidelityGoal() else ""
        stderr_console().print(flagged("warning", f"{', and '.join(faults)}{advice}"), soft_wrap=True)


def _print_latency(name: str, latency: Mapping[str, Any], write: Callable[[str], None]) -> None:
    ratio = latency["fp32"] / latency[name]
    is_faster = fastest({FP32.name: latency["fp32"], name: latency[name]}) == name
    result = "faster" if is_faster else "SLOWER" if ratio < 0.95 else "no gain"
    write(
        f"  latency on this machine, one thread: fp32 {latency['fp32']:.2f} ms, {name} {latency[name]:.2f} ms "
        f"({result}, {ratio:.2f}× as fast)"
    )


def _unconfirmed(tradeoff: Tradeoff) -> str | None:
    """Return a note if the confidence interval allows a larger drop than the goal, with the samples needed."""
    found, most = tradeoff.chosen.fidelity, tradeoff.goal.max_drop
    if most is None or not tradeoff.met or found.most_drop_points <= most:
        return None
    needed = samples_needed(tradeoff.samples, found.drop_points, found.most_drop_points, most, worst=100.0)
    what = "points of accuracy" if found.accuracy is not None else "% of the predictions"
    advice = "no number of samples suffices" if needed is None else f"about {needed:,} samples needed to confirm"
    return (
        f"inconclusive: a loss of at most {most:g} {what} is not confirmed; {found.drop_points:.1f} on these samples, "
        f"up to {found.most_drop_points:.1f} at 95% confidence; {advice}"
    )


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
