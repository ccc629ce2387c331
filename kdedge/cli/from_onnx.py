"""`kdedge export --from-onnx`."""

from pathlib import Path

__all__ = ["export_onnx"]


def export_onnx(
    source: Path,
    output: Path | None,
    method: str | None,
    labels: Path | None,
    target: str | None,
    mean: str | None,
    std: str | None,
    bgr: bool,
    size: int | None,
) -> None:
    """Add a map to a file of any framework; the arguments are the options of `kdedge export`."""
    from kdedge.report.explaining import print_explained
    from kdedge.report.progress import step_progress
    from kdedge.workflow.explain_onnx import explain_onnx
    from kdedge_export.surgery import PixelInput
    from kdedge_export.surgery.saliency import as_method
    from kdedge_runtime.errors import UsageError

    pixels = None
    if mean is not None and std is not None:
        pixels = PixelInput(_channels("--mean", mean), _channels("--std", std, positive=True), bgr)
    elif mean is not None or std is not None or bgr:
        raise UsageError("How pixels become the model's input takes both --mean and --std.")
    with step_progress() as progress:
        result = explain_onnx(
            source,
            output=output,
            target=target,
            method=None if method is None else as_method(method),
            pixels=pixels,
            labels=labels,
            side_px=size,
            progress=progress,
        )
    print_explained(result, source)


def _channels(option: str, text: str, *, positive: bool = False) -> tuple[float, float, float]:
    """Red, green and blue of `0.5`, `1/255` or `0.485,0.456,0.406`."""
    from fractions import Fraction

    from kdedge_runtime.errors import UsageError

    try:
        values = [float(Fraction(part.strip())) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        values = []
    if len(values) not in (1, 3) or (positive and min(values) <= 0):
        raise UsageError(
            f"{option} {text} is not what a colour channel has. Expected R,G,B or one number{', above 0' * positive}, "
            "such as 0.485,0.456,0.406 or 0.5 or 1/255."
        )
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue
