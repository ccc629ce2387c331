"""Quantize an explained file of another framework; its fp32 file is the reference."""

from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.calibration_images import calibration_images
from kdedge.pipelines.model_export import ExportResult
from kdedge.pipelines.quantization_settings import recipe_of
from kdedge_export.file_quantization import quantize
from kdedge_export.onnx_import import ExplainedFile
from kdedge_export.quantization import FidelityGoal
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["quantize_onnx"]


def quantize_onnx(
    file: ExplainedFile, *, data: str | None, goal: FidelityGoal, profile: DeviceProfile, progress: ProgressCallback
) -> ExportResult:
    """Write `FILE.int8.onnx` next to an explained file: backbone in int8, head and map in fp32.

    Args:
        file: result of `explain_onnx`, with preprocessing.
        data: images to calibrate on.
        goal: quantization goal relative to the file's own predictions and maps.
        profile: device profile of the int8 file.
        progress: called during long steps.

    Returns:
        The result, with `int8` None if the goal is missed. The fp32 file's own errors are in `file`.

    Raises:
        UsageError: the file has no preprocessing, or there are no calibration images.
        ModelFileError: the file is already quantized, or cannot be converted to an opset with int8 support.
    """
    metadata = file.metadata
    if metadata is None:
        raise UsageError(
            f"int8 calibration needs images, but {file.path} has no preprocessing for them. Add --mean MEAN "
            "--std STD, or remove --quantize."
        )
    images = calibration_images(Artifacts.open(file.path), metadata, data, progress)
    quantized = quantize(
        file.path,
        images.calibration,
        images.held_out,
        targets=images.targets,
        recipe=recipe_of(profile),
        goal=goal,
        device=profile.name,
        progress=progress,
    )
    return ExportResult(
        file.path,
        metadata,
        file.output_error,
        file.map_error,
        int8=quantized.path,
        removed=quantized.removed,
        int8_note=quantized.note,
        tradeoff=quantized.tradeoff,
        problems=images.problems,
    )
