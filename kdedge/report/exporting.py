"""What `kdedge export` says at its end."""

import shlex
from pathlib import Path

from kdedge.models.run_folder import is_run
from kdedge.report.console import flagged, stderr_console
from kdedge.workflow.export_model import ExportResult

__all__ = ["print_export"]


def print_export(result: ExportResult, source: str, data: str | None) -> None:
    """Print the files, how well they agree with PyTorch, and the next command (on stderr)."""
    console = stderr_console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    if result.problems is not None:
        console.print(flagged("warning", f"calibration: {result.problems}"), soft_wrap=True)
    spec, outputs = result.metadata.input, result.metadata.outputs
    say(f"{result.fp32}  {_megabytes(result.fp32)}, input {spec.width} × {spec.height} px")
    say(f"  [x] logits equal PyTorch's on two inputs (relative error {result.logits_error:.0e})")
    if result.map_error is not None:
        looked_at = outputs.head if outputs.target_layer is None else f"{outputs.head} behind {outputs.target_layer}"
        cells = f"{outputs.method}, {outputs.map_width} × {outputs.map_height} cells, {looked_at}"
        say(f"  [x] map equals PyTorch's on two inputs (relative error {result.map_error:.0e}): {cells}")
    if result.int8 is not None and result.latency_ms is not None:
        fp32_ms, int8_ms = result.latency_ms
        ratio = fp32_ms / int8_ms
        verdict = "no gain" if 0.95 < ratio < 1.05 else "faster" if ratio > 1 else "SLOWER"
        say(f"{result.int8}  {_megabytes(result.int8)}, {result.metadata.input.width} px, head and map in float")
        say(
            f"  measured here, one thread: fp32 {fp32_ms:.2f} ms, int8 {int8_ms:.2f} ms; "
            f"int8 is {ratio:.2f} × as fast ({verdict} on this machine)"
        )
    if result.metadata.outputs.method == "none":
        say(f"\nNext: {shlex.join(['kdedge', 'run', str(result.fp32)])} --source PICTURE")
    elif result.metadata.lineage["student"]["weights"] is None:
        say("\nThe weights are random: this file is for measuring. Trained ones: --weights FILE.")
    elif not is_run(Path(source)):
        pictures = "DIR" if data is None else shlex.quote(data)
        say(f"\nNext: {shlex.join(['kdedge', 'validate', str(result.fp32)])} --data {pictures}")
    elif result.fp32.resolve().parent == Path(source).resolve():
        in_its_place = result.fp32.name == "model.onnx"
        say(f"\nNext: {shlex.join(['kdedge', 'validate', source if in_its_place else str(result.fp32)])}")
    else:
        say(f"\nNext: {shlex.join(['kdedge', 'run', str(result.fp32)])} --source 0 --view 8080")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
