"""Add a saliency map to a classifier of any framework: `kdedge export MODEL.onnx`."""

import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.cli.from_model import check_goal_possible
from kdedge_runtime.devices import DeviceProfile, load_profile
from kdedge_runtime.errors import UsageError
from kdedge_runtime.precision import PRECISIONS
from kdedge_runtime.saliency_methods import NO_MAP, SALIENCY_METHODS
from kdedge_runtime.util.counts import grid_text

if TYPE_CHECKING:
    from rich.console import Console

    from kdedge.pipelines.onnx_explanation import ExplainedOnnx
    from kdedge_export.onnx_import import ExplainedFile, Geometry, PixelInput
    from kdedge_runtime.modalities.image import Resize

__all__ = ["OnnxExport", "export_onnx_file", "print_explained"]


@dataclass(frozen=True)
class OnnxExport:
    """Options of `kdedge export MODEL.onnx`, unparsed."""

    source: Path
    output: Path | None
    method: str | None
    """Saliency method, or None to choose one for the model. There is no fallback for an explicit method."""
    target: str | None
    labels: Path | None
    mean: str | None
    std: str | None
    bgr: bool
    size: int | None
    head: str | None
    resize: "Resize | None"
    crop_fraction: float | None
    precisions: tuple[str, ...]
    min_map_correlation: float | None
    max_drop: float | None
    data: str | None
    device: str | None

    def __post_init__(self) -> None:
        """Validate the combination of options.

        Raises:
            UsageError: no map is requested, or the preprocessing is incomplete.
        """
        if self.method == NO_MAP:
            raise UsageError(
                f"The export of an ONNX file adds a saliency map, but --method none requests none for {self.source}. "
                "Remove --method."
            )
        if (self.mean is None) != (self.std is None) or (self.bgr and self.mean is None):
            raise UsageError("Preprocessing needs both --mean and --std.")
        if self.data is None and any(PRECISIONS[name].is_calibrated for name in self.precisions):
            raise UsageError(
                "Quantization needs images to calibrate on. Give a folder of images similar to those seen "
                "in use: --data DIR."
            )
        check_goal_possible(self.min_map_correlation, self.max_drop)

    def pixels(self) -> "PixelInput | None":
        """Parse the preprocessing options; None if there are none.

        Raises:
            UsageError: `--mean` or `--std` is not one number per channel, or not for pixels in [0, 1].
        """
        from kdedge_export.onnx_import import PixelInput

        if self.mean is None or self.std is None:
            return None
        mean, std = _channels("--mean", self.mean), _channels("--std", self.std, positive=True)
        if max(map(abs, mean)) > 1:
            shares, spread = (",".join(f"{value / 255:.4g}" for value in values) for values in (mean, std))
            raise UsageError(
                f"--mean {self.mean} is not for pixels in [0, 1]. Scaled from [0, 255] it is --mean "
                f"{shares}, and --std {self.std} becomes --std {spread}."
            )
        return PixelInput(mean, std, self.bgr)

    def geometry(self) -> "Geometry | None":
        """Return the resizing rule, or None if no option sets it.

        Raises:
            UsageError: the combination of rule and crop fraction is invalid.
        """
        from kdedge_export.onnx_import import Geometry

        if self.resize is None and self.crop_fraction is None:
            return None
        return Geometry(self.resize or "crop", 1.0 if self.crop_fraction is None else self.crop_fraction)


def export_onnx_file(options: OnnxExport) -> None:
    """Write the file with its saliency map and print a summary."""
    profile = load_profile(options.device or "generic")
    if options.data is not None:
        from kdedge.data.readers.reader_choice import check_data_source

        check_data_source(options.data)
    from kdedge.cli.progress_bar import step_progress
    from kdedge.pipelines.onnx_explanation import explain_onnx

    with step_progress() as progress:
        result = explain_onnx(
            options.source,
            output=options.output,
            target=options.target,
            method=options.method,
            pixels=options.pixels(),
            labels=options.labels,
            geometry=options.geometry(),
            side_px=options.size,
            head=options.head,
            progress=progress,
        )
        if options.data is not None and result.file.metadata is not None:
            from kdedge.pipelines.onnx_familiarity import with_known_samples  # imports torch

            result = with_known_samples(result, options.data, progress)
    print_explained(result, options.source)
    if options.data is not None and result.file.metadata is None and not options.precisions:
        from kdedge.cli.console import flagged, stderr_console

        note = (
            f"--data {options.data} is not used, since the preprocessing of its images is unknown: add --mean and --std"
        )
        stderr_console().print(flagged("warning", note), soft_wrap=True)
    fastest = _convert(options, result.file, profile) if options.precisions else result.file.path
    print_next(result.file, options.source, fastest)


def print_explained(result: "ExplainedOnnx", source: Path) -> None:
    """Print the file, its saliency method, the checks and the cost to stderr."""
    from kdedge.cli.console import flagged, stderr_console
    from kdedge.cli.familiarity_line import describe_familiarity

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
    if file.metadata is not None and file.metadata.familiarity is not None:
        write(f"  {describe_familiarity(file.metadata.familiarity)}")


def print_next(file: "ExplainedFile", source: Path, fastest: Path) -> None:
    """Print the next command: run the fastest file, or add the preprocessing that running needs."""
    from kdedge.cli.console import stderr_console
    from kdedge.cli.next_command import live_command

    if file.metadata is not None:
        text = f"\nNext: {live_command(fastest, file.metadata.input.example_source)}"
    else:
        text = (
            "\nThe file takes the same input as the original. kdedge run and explain also need its preprocessing, "
            "(pixel / 255 − mean) / std:\n"
            f"  {shlex.join(['kdedge', 'export', str(source)])} --mean MEAN --std STD\n"
            "  torchvision, timm: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225\n"
            "  pixels in [-1, 1] (Keras: MobileNet, Inception, Xception, ResNetV2): --mean 0.5 --std 0.5\n"
            "  in [0, 255], normalized in the graph (Keras: EfficientNet, MobileNetV3, ConvNeXt): --mean 0 --std "
            "1/255\n  in [0, 1]: --mean 0 --std 1\n"
            "  Keras, caffe mode (ResNet50, VGG16): --mean 0.48502,0.45796,0.40760 --std 1/255 --bgr"
        )
    stderr_console().print(text, soft_wrap=True)


def _write_method(result: "ExplainedOnnx", console: "Console") -> None:
    from kdedge.cli.console import BUSY, flagged
    from kdedge_export.onnx_import.map_check import CONFIRMED

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
    positions = f"{grid_text(outputs.map_height, outputs.map_width)} map, " if outputs.map_width else ""
    write(f"      {positions}{outputs.head} head, target layer {outputs.target_layer}")
    time = f"{cost.latency:.2f} × the latency" if cost.latency >= 1 else "no measurable latency"
    write(f"  cost of the map: {cost.macs:.3f} × the MACs and {time} (measured here, one thread)")
    if cost.front_latency is not None:
        front = f"{cost.front_latency:.2f} × the latency" if cost.front_latency >= 1 else "no measurable latency"
        write(f"  cost of uint8 input: {front}, compared with the file's own input")
    if cost.is_busy:
        console.print(flagged("note", BUSY), soft_wrap=True)


def _convert(options: OnnxExport, file: "ExplainedFile", profile: DeviceProfile) -> Path:
    """Write the file in other precisions, print their summary and return the file recommended on this machine."""
    from kdedge.cli.console import flagged, stderr_console
    from kdedge.cli.export_summary import check_goal_reached, print_precisions
    from kdedge.cli.progress_bar import step_progress
    from kdedge.pipelines.onnx_quantization import quantize_onnx
    from kdedge_export.quantization import FidelityGoal

    goal = FidelityGoal(options.min_map_correlation, options.max_drop)
    with step_progress() as progress:
        result = quantize_onnx(
            file, precisions=options.precisions, data=options.data, goal=goal, profile=profile, progress=progress
        )
    console = stderr_console()
    if result.problems is not None:
        console.print(flagged("warning", f"calibration: {result.problems}"), soft_wrap=True)
    print_precisions(result, lambda line: console.print(line, soft_wrap=True))
    check_goal_reached(result)
    return result.fastest


def _channels(option: str, text: str, *, positive: bool = False) -> tuple[float, float, float]:
    """Parse red, green and blue values from `0.5`, `1/255` or `0.485,0.456,0.406`."""
    try:
        values = [float(Fraction(part.strip())) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        values = []
    if len(values) not in (1, 3) or (positive and min(values) <= 0):
        raise UsageError(
            f"{option} {text} is not a valid channel value. Expected R,G,B or one "
            f"number{', above 0' * positive}, such as 0.485,0.456,0.406 or 0.5 or 1/255."
        )
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue
