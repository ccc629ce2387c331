"""Summary of `kdedge export --from-onnx`. This module does not import torch."""

import shlex
from pathlib import Path

from rich.console import Console

from kdedge.cli.console import BUSY, flagged, stderr_console
from kdedge.pipelines.onnx_explanation import ExplainedOnnx
from kdedge_export.onnx_import.map_check import CONFIRMED
from kdedge_runtime.saliency_methods import SALIENCY_METHODS

__all__ = ["print_explained"]


def print_explained(result: ExplainedOnnx, source: Path) -> None:
    """Print the file, its saliency method, the checks, the cost and the next command to stderr."""
    console, file = stderr_console(), result.file

    def write(line: str) -> None:
        console.print(line, soft_wrap=True)

    size = f"{file.path.stat().st_size / 1e6:.2f} MB"
    if result.cost is None:
        write(f"{file.path}  {size}: copied unchanged, since {source} already has a saliency map")
    else:
        write(f"{file.path}  {size}")
        _write_method(result, console)
    if result.left_out:
        note = f"inputs {', '.join(result.left_out)} are not used in {source} and were removed from the exported file"
        console.print(flagged("note", note), soft_wrap=True)
    if file.labels_are_numbers and file.metadata is not None:
        last = len(file.metadata.labels) - 1
        note = f"the file has no class names, so classes are numbered 0 to {last}. Add names with --labels FILE"
        console.print(flagged("note", note), soft_wrap=True)
    if file.metadata is not None:
        write(f"\nNext: {shlex.join(['kdedge', 'run', str(file.path)])} --source IMAGE")
    else:
        write(
            "\nThe file takes the same input as the original. kdedge run and explain also need its preprocessing, "
            "(pixel / 255 − mean) / std:\n"
            f"  {shlex.join(['kdedge', 'export', '--from-onnx', str(source)])} --mean MEAN --std STD\n"
            "  torchvision, timm: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225\n"
            "  pixels in [-1, 1] (Keras: MobileNet, Inception, Xception, ResNetV2): --mean 0.5 --std 0.5\n"
            "  in [0, 255], normalized in the graph (Keras: EfficientNet, MobileNetV3, ConvNeXt): --mean 0 --std "
            "1/255\n  in [0, 1]: --mean 0 --std 1\n"
            "  Keras, caffe mode (ResNet50, VGG16): --mean 0.48502,0.45796,0.40760 --std 1/255 --bgr"
        )


def _write_method(result: ExplainedOnnx, console: Console) -> None:
    file, cost = result.file, result.cost

    def write(line: str) -> None:
        console.print(line, soft_wrap=True)

    outputs = file.outputs
    assert cost is not None
    same = "bit-exact" if file.output_error == 0 else f"relative error {file.output_error:.0e}"
    write(f"  [✓] original outputs are unchanged ({same})")
    name = SALIENCY_METHODS[outputs.method].title
    why = f" ({file.no_derivative_of} is not differentiable here)" if file.no_derivative_of else ""
    if file.map_error is None:
        write(f"  [✓] map: {name}{why}, as in the original file")
    elif file.is_map_confirmed:
        against = {"reciprocam": "masked forward passes", "eigencam": "its definition"}.get(
            outputs.method, "finite differences of the logits"
        )
        write(f"  [✓] map: {name}{why}, matches {against} (relative error {file.map_error:.0e})")
    else:
        write(f"  map: {name}{why}")
        note = (
            "the logits are too coarse to confirm the map numerically: relative error "
            f"{file.map_error:.0e}, {CONFIRMED:.0e} is required"
        )
        console.print(flagged("warning", note), soft_wrap=True)
    if outputs.method == "reciprocam":
        write("      it evaluates the layers after the target layer once per map position, for each position's logit")
    positions = f"{outputs.map_width} × {outputs.map_height} map, " if outputs.map_width else ""
    write(f"      {positions}{outputs.head} head, target layer {outputs.target_layer}")
    time = f"{cost.latency:.2f} × the latency" if cost.latency >= 1 else "no measurable latency"
    write(f"  cost of the map: {cost.macs:.3f} × the MACs and {time} (measured here, one thread)")
    if cost.front_latency is not None:
        front = f"{cost.front_latency:.2f} × the latency" if cost.front_latency >= 1 else "no measurable latency"
        write(f"  cost of uint8 input: {front}, compared with the file's own input")
    if cost.is_busy:
        console.print(flagged("note", BUSY), soft_wrap=True)
