"""What `kdedge export --from-onnx` says at its end. Nothing here needs torch."""

import shlex
from pathlib import Path

from rich.console import Console

from kdedge.cli.console import BUSY, flagged, stderr_console
from kdedge.pipelines.onnx_explanation import ExplainedOnnx
from kdedge_export.onnx_import.graph_methods import TITLES, as_method
from kdedge_export.onnx_import.map_check import CONFIRMED

__all__ = ["print_explained"]


def print_explained(result: ExplainedOnnx, source: Path) -> None:
    """Print the file, how its map is computed, what was checked, what it costs, and what is next (on stderr)."""
    console, file = stderr_console(), result.file

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    size = f"{file.path.stat().st_size / 1e6:.2f} MB"
    if result.cost is None:
        say(f"{file.path}  {size}: {source} is explained already, this is a copy of it")
    else:
        say(f"{file.path}  {size}")
        _say_method(result, console)
    if result.left_out:
        note = f"nothing in {source} reads its inputs {', '.join(result.left_out)}, so this file does without them"
        console.print(flagged("note", note), soft_wrap=True)
    if file.labels_are_numbers and file.metadata is not None:
        last = len(file.metadata.labels) - 1
        note = f"the file does not name its classes, so they are called 0 to {last}. Name them: --labels FILE"
        console.print(flagged("note", note), soft_wrap=True)
    if file.metadata is not None:
        say(f"\nNext: {shlex.join(['kdedge', 'run', str(file.path)])} --source PICTURE")
    else:
        say(
            "\nIt takes what the original takes. For kdedge run and explain, say how pixels become that, "
            "(pixel / 255 − mean) / std:\n"
            f"  {shlex.join(['kdedge', 'export', '--from-onnx', str(source)])} --mean MEAN --std STD\n"
            "  torchvision, timm: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225\n"
            "  pixels in [-1, 1] (Keras: MobileNet, Inception, Xception, ResNetV2): --mean 0.5 --std 0.5\n"
            "  in [0, 255], normalised inside (Keras: EfficientNet, MobileNetV3, ConvNeXt): --mean 0 --std 1/255\n"
            "  in [0, 1]: --mean 0 --std 1\n"
            "  Keras, caffe mode (ResNet50, VGG16): --mean 0.48502,0.45796,0.40760 --std 1/255 --bgr"
        )


def _say_method(result: ExplainedOnnx, console: Console) -> None:
    file, cost = result.file, result.cost

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    outputs = file.outputs
    assert cost is not None
    same = "bit for bit" if file.output_error == 0 else f"relative error {file.output_error:.0e}"
    say(f"  [✓] its own outputs are the original's ({same})")
    name = TITLES[as_method(outputs.method)]
    why = f": {file.no_derivative_of} has no derivative here" if file.no_derivative_of else ""
    if file.map_error is None:
        say(f"  [✓] map: {name}{why}, as it was")
    elif file.is_map_confirmed:
        against = {"reciprocam": "masked runs", "eigencam": "its definition"}.get(
            outputs.method, "differences of the logits"
        )
        say(f"  [✓] map: {name}{why}, agrees with {against} (relative error {file.map_error:.0e})")
    else:
        say(f"  map: {name}{why}")
        note = (
            f"the logits are too coarse to confirm the map: relative error {file.map_error:.0e}, "
            f"where {CONFIRMED:.0e} would be"
        )
        console.print(flagged("warning", note), soft_wrap=True)
    if outputs.method == "reciprocam":
        say("      it runs all after the target once a cell, and tells what each cell alone adds to the logit")
    cells = f"{outputs.map_width} × {outputs.map_height} cells, " if outputs.map_width else ""
    say(f"      {cells}{outputs.head} head, of {outputs.target_layer}")
    time = f"{cost.latency:.2f} × the time" if cost.latency >= 1 else "no time that can be told from noise"
    say(f"  the map costs {cost.macs:.3f} × the MACs and, measured here on one thread, {time}")
    if cost.front_latency is not None:
        front = f"{cost.front_latency:.2f} × the time" if cost.front_latency >= 1 else "no time either"
        say(f"  uint8 pixels as input cost {front}, of the file's own input")
    if cost.is_busy:
        console.print(flagged("note", BUSY), soft_wrap=True)
