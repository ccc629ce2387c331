"""Checks of files and options that cannot be used together."""

from pathlib import Path

import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_export.onnx_import.preprocessing import Geometry, PixelInput
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.familiarity import FAMILIARITY

__all__ = ["OUTPUTS", "has_map", "check_batch", "check_input_fits", "check_options_used"]

OUTPUTS = "kdedge.outputs"
"""Key of `metadata_props` that describes the map; the only one in files without preprocessing."""


def check_options_used(
    source: Path,
    is_own: bool,
    had_map: bool,
    map_option: str | None,
    pixels: PixelInput | None,
    geometry: Geometry | None,
    labels: tuple[str, ...] | None,
    side_px: int | None,
) -> None:
    """Reject options that would be ignored because the file already has the result."""
    if had_map and map_option is not None:
        raise UsageError(
            f"{source} already has a map. Remove --target-layer, --method and --head, or explain the file it was made "
            "from."
        )
    given = {"--labels": labels, "--size": side_px, "--resize": geometry, "--mean": pixels, "--std": pixels}
    useless = _listed([option for option, value in given.items() if value is not None])
    if is_own and useless:
        raise UsageError(f"{source} is already a kdedge model, with its own labels and input. Remove {useless}.")
    if had_map and pixels is None and useless:
        raise UsageError(
            f"{source} already has a map and would be copied unchanged. Remove {useless}, or specify the preprocessing "
            "too: --mean, --std."
        )


def check_batch(port: GraphInput, name: str) -> None:
    """Reject a graph whose input has a fixed batch of several images.

    Raises:
        HeadNotSupported: the batch is fixed, and larger than 1.
    """
    batch = port.shape[0]
    if batch is not None and batch > 1:
        raise HeadNotSupported(
            f"{name} takes a fixed batch of {batch} images. Expected a batch of 1, or a dynamic one. Export the model "
            "again with such a batch, as torch.onnx.export does for an example of one image."
        )


def _listed(options: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(options[:-1]), *options[-1:])))


def has_map(model: onnx.ModelProto, props: dict[str, str], source: Path) -> bool:
    """Return True if kdedge already added a map to a file.

    Raises:
        ModelFileError: the file has tensors of these names from elsewhere, or was exported without a map.
    """
    outputs = {value.name for value in model.graph.output}
    if OUTPUTS in props and {"saliency_map", "explained_class"} <= outputs:
        return True
    taken = outputs | {value.name for value in model.graph.input}
    taken |= {name for node in model.graph.node for name in node.output}
    clash = sorted(taken & {"saliency_map", "explained_class", "class_index", FAMILIARITY})
    if clash:
        raise ModelFileError(
            f"{source} already has a tensor {clash[0]}, which kdedge did not write. Rename it, or export the model "
            "again."
        )
    if OUTPUTS in props:
        raise ModelFileError(
            f"{source} was exported by kdedge with --method none. Export its source again without that option."
        )
    return False


def check_input_fits(labels: tuple[str, ...], classes: int, name: str) -> None:
    """Check that there is one label per class.

    Raises:
        UsageError: there are more or fewer.
    """
    if len(labels) != classes:
        raise UsageError(
            f"There are {len(labels)} labels ({labels[0]}, …, {labels[-1]}) but {name} has {classes} classes. Give "
            "one label per class, in the order of its output: --labels FILE."
        )
