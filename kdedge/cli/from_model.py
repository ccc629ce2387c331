"""Export a run folder or a named model: `kdedge export SOURCE`."""

from dataclasses import dataclass
from pathlib import Path

from kdedge_runtime.errors import UsageError
from kdedge_runtime.saliency_methods import NO_MAP, RECIPROCAM

__all__ = ["ModelExport", "export_model_file", "check_goal_possible"]


@dataclass(frozen=True)
class ModelExport:
    """Options of `kdedge export SOURCE`, with defaults filled in."""

    source: str
    """Run folder or model name."""
    output: Path | None
    method: str | None
    target_layer: str | None
    weights: Path | None
    pretrained: bool | None
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    precisions: tuple[str, ...]
    min_map_correlation: float | None
    max_drop: float | None
    data: str | None
    device: str | None

    def __post_init__(self) -> None:
        """Validate the combination of options.

        Raises:
            UsageError: two options contradict each other, or a number is out of range.
        """
        if self.method == RECIPROCAM:
            raise UsageError(
                f"--method reciprocam needs an ONNX file, but {self.source} is not one. Choose another method."
            )
        if self.min_map_correlation is not None and self.method == NO_MAP:
            raise UsageError(
                "--min-map-correlation needs a saliency map, but --method none exports none. Remove one of the two "
                "options."
            )
        check_goal_possible(self.min_map_correlation, self.max_drop)


def check_goal_possible(min_map_correlation: float | None, max_drop: float | None) -> None:
    """Validate the range of a quantization goal.

    Raises:
        UsageError: A number is out of range.
    """
    if min_map_correlation is not None and not -1 <= min_map_correlation < 1:
        raise UsageError(
            "--min-map-correlation must be a correlation of at least -1 and below 1, such as 0.98; "
            f"got {min_map_correlation:g}."
        )
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UsageError(f"--max-drop must be in percentage points from 0 to 100, such as 0.5; got {max_drop:g}.")


def export_model_file(options: ModelExport) -> None:
    """Export the model files and print a summary.

    Raises:
        ValidationFailed: quantization missed its goal. The fp32 file is written.
    """
    from kdedge.data.readers.reader_choice import check_data_source
    from kdedge.models.artifacts import Artifacts
    from kdedge_runtime.devices import load_profile

    # Checked before torch is imported, which takes seconds.
    device = options.device or "generic"
    load_profile(device)
    artifacts = Artifacts.open(options.source)
    artifacts.check_trainable(options.weights, options.pretrained)
    if options.data is not None:
        check_data_source(options.data)
    import kdedge
    from kdedge.cli.export_summary import check_goal_reached, print_export
    from kdedge.cli.progress_bar import step_progress

    with step_progress() as progress:
        result = kdedge.export(
            artifacts,
            output=options.output,
            weights=options.weights,
            pretrained=options.pretrained,
            classes=options.classes,
            prompts=options.prompts,
            method=options.method,
            target_layer=options.target_layer,
            precisions=options.precisions,
            min_map_correlation=options.min_map_correlation,
            max_drop=options.max_drop,
            data=options.data,
            device=device,
            progress=progress,
        )
    print_export(result, artifacts, options.data, options.weights)
    check_goal_reached(result)
