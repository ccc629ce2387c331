"""Convert an explained file of another framework to other precisions; its fp32 file is the reference."""

from collections.abc import Sequence

from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.calibration_samples import calibration_samples
from kdedge.pipelines.familiarity_samples import familiarity_samples
from kdedge.pipelines.model_export import ExportResult
from kdedge.pipelines.quantization_settings import recipe_of
from kdedge_export.file_quantization import quantize
from kdedge_export.onnx_import import ExplainedFile
from kdedge_export.quantization import FidelityGoal
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import UsageError
from kdedge_runtime.precision import precision_named
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["quantize_onnx"]


def quantize_onnx(
    file: ExplainedFile,
    *,
    precisions: Sequence[str],
    data: str | None,
    goal: FidelityGoal,
    profile: DeviceProfile,
    progress: ProgressCallback,
) -> ExportResult:
    """Write an explained file in other precisions next to it, such as `FILE.int8.onnx`; head and map stay in fp32.

    Args:
        file: result of `explain_onnx`, with preprocessing.
        precisions: names of the recipes.
        data: images to calibrate on, also used by recipes that need none; None if no recipe needs them.
        goal: quantization goal relative to the file's own predictions and maps.
        profile: device profile that quantized files are optimized for.
        progress: called during long steps.

    Returns:
        The result. The fp32 file's own errors are in `file`.

    Raises:
        UsageError: the file has no preprocessing, or there are no calibration images.
        ModelFileError: the file is already quantized, or cannot be converted.
    """
    metadata = file.metadata
    if metadata is None:
        raise UsageError(
            f"Quantization needs images, but {file.path} has no preprocessing for them. Add --mean MEAN --std STD, or "
            "remove --quantize and --precision."
        )
    calibrated = [name for name in precisions if precision_named(name).is_calibrated]
    is_needed = bool(calibrated) or data is not None
    calibration = calibration_samples(Artifacts.open(file.path), metadata, data, progress) if is_needed else None
    familiarity = None
    if data is not None:
        familiarity = familiarity_samples(Artifacts.open(file.path), metadata, data, progress)
    sets = None if calibration is None else calibration.sets
    quantized = {}
    for name in dict.fromkeys(precisions):
        quantized[name] = quantize(
            file.path,
            None if sets is None else sets.calibration,
            None if sets is None else sets.held_out,
            precision=name,
            targets=None if sets is None else sets.targets,
            familiarity=familiarity,
            recipe=recipe_of(profile),
            goal=goal if name in calibrated else None,
            device=profile.name,
            progress=progress,
        )
    return ExportResult(
        file.path,
        metadata,
        file.output_error,
        file.map_error,
        quantized=quantized,
        problems=None if calibration is None else calibration.problems,
    )
