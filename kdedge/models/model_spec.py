"""What run folders keep of a network."""

from dataclasses import dataclass

__all__ = ["ModelSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build the same network again."""

    name: str
    """With its library (`torchvision:resnet18`, `timm:resnet18.a1_in1k`, `small:resnet20`) or file (`/n.py:make`).

    Behind a dot stands the tag of published weights, where these are known.
    """
    classes: int
    stride_factor: int = 1
    """How many times finer the resolution is than the network's own, see `kdedge.models.stem.reduce_stride`."""
    fresh_stem: bool = True
    """Whether the stem was adapted as that of an untrained network."""
    code_sha256: str | None = None
    """Of a factory's file; it must still be that one when the network is built. None for a library's network."""
