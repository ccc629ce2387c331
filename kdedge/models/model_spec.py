"""Model specification stored in run folders."""

from dataclasses import dataclass

__all__ = ["ModelSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build the same model again."""

    name: str
    """Name with its library (`torchvision:resnet18`, `timm:resnet18.a1_in1k`, `small:resnet20`) or file (`/n.py:make`).

    The tag of published weights follows after a dot, if known.
    """
    classes: int
    stride_factor: int = 1
    """Factor by which the output stride is reduced, see `kdedge.models.stem.reduce_stride`."""
    fresh_stem: bool = True
    """True if the output stride was reduced as for an untrained model; see `kdedge.models.stem.reduce_stride`."""
    embedding: int | None = None
    """Number of values of an embedding, D; None for a classifier."""
    code_sha256: str | None = None
    """Hash of a factory's file, which must be unchanged when the model is built; None for library models."""
