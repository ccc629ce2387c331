"""Registry of precisions, and the file names of a model's precisions.

Nothing here converts a model: `kdedge_export.quantization` has a recipe for every precision except fp32. To derive or
parse a file name, use the functions of this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge_runtime.errors import UsageError

if TYPE_CHECKING:
    from kdedge_runtime.metadata import Metadata

__all__ = [
    "FP32",
    "PRECISIONS",
    "Precision",
    "check_fp32_name",
    "fastest",
    "find_variants",
    "precision_named",
    "precision_of",
    "variant_path",
]

_WORTH = 0.95
"""Latency ratio to a more exact file below which a file is preferred; a smaller gain does not justify the rounding."""


@dataclass(frozen=True)
class Precision:
    """Number format of a model file."""

    name: str
    """Name on the command line, in the metadata and in reports."""
    suffix: str
    """Ending of the file name, such as `.int8.onnx`."""
    title: str
    """Name in tables."""
    is_calibrated: bool = False
    """True if the conversion needs samples, and can keep layers in fp32 to meet a goal. Default False."""
    is_integer: bool = False
    """True if its layers may run in integer kernels; results are then evaluated with exact sums. Default False."""


FP32 = Precision("fp32", ".onnx", "ONNX, fp32")

PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        FP32,
        Precision("fp16", ".fp16.onnx", "ONNX, fp16"),
        Precision("int8", ".int8.onnx", "ONNX, int8", is_calibrated=True, is_integer=True),
    )
}
"""Precisions by name, from the most to the least exact."""


def precision_named(name: str) -> Precision:
    """Return a precision.

    Raises:
        UsageError: there is no precision with this name.
    """
    if name not in PRECISIONS:
        raise UsageError(f"There is no precision {name!r}. Available: {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def precision_of(metadata: "Metadata") -> Precision:
    """Return the precision of a model file.

    Raises:
        UsageError: the file has a precision that this version does not know.
    """
    return precision_named(metadata.precision)


def variant_path(path: Path, precision: Precision) -> Path:
    """Return the path of a model in another precision: `a/model.onnx` and `a/model.int8.onnx` are variants.

    Args:
        path: model file in any precision.
        precision: precision of the returned path.
    """
    return path.with_name(_stem(path) + precision.suffix)


def find_variants(path: Path) -> tuple[Path, ...]:
    """Return the existing files of a model in other precisions, from the most to the least exact.

    Args:
        path: model file in any precision; it is not among the results.
    """
    paths = (variant_path(path, precision) for precision in PRECISIONS.values())
    return tuple(other for other in paths if other != path and other.is_file())


def fastest(latencies: Mapping[str, float]) -> str:
    """Return the name of the precision to run: a less exact one only if it is at least 5% faster.

    Args:
        latencies: latency by precision name, in any unit.
    """
    first, *others = (name for name in PRECISIONS if name in latencies)
    for name in others:
        if latencies[name] < _WORTH * latencies[first]:
            first = name
    return first


def check_fp32_name(path: Path) -> None:
    """Raise if an fp32 file has the name of another precision, whose file would replace it or be removed.

    Raises:
        UsageError: the name ends in the suffix of another precision.
    """
    named = _precision_in(path)
    if named is not FP32:
        raise UsageError(
            f"{path} has the name of an {named.name} file, but is the fp32 file. Name it {_stem(path)}{FP32.suffix}; "
            "the other precisions are named after it."
        )


def _precision_in(path: Path) -> Precision:
    """Return the precision with the longest suffix of a file name."""
    found = [each for each in PRECISIONS.values() if path.name.endswith(each.suffix)]
    return max(found, key=lambda each: len(each.suffix), default=FP32)


def _stem(path: Path) -> str:
    """Return the file name without the suffix of its precision."""
    return path.name.removesuffix(_precision_in(path).suffix)
