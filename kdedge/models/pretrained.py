"""torchvision's published weights: a network may have several, each trained on pictures prepared in its own way.

The files are told apart by their hash, which torchvision writes into their names: `resnet50-0676ba61.pth` starts its
SHA-256 with 0676ba61. Whoever has another file says whose preparation it wants by a tag behind the network's name, as
timm has them: `torchvision:resnet50.IMAGENET1K_V1`.
"""

import re
from pathlib import Path
from typing import Any

from kdedge.models.digest import sha256_of
from kdedge_runtime.metadata import ImageInput, Interpolation

__all__ = ["assumed_input", "published_name", "torchvision_input", "torchvision_tags"]

_LIBRARY = "torchvision:"


def torchvision_tags(network: str) -> list[str]:
    """The tags of a network's published weights: `IMAGENET1K_V1`."""
    return list(_published(network))


def torchvision_input(name: str) -> ImageInput:
    """The input of a network's published weights: of those that the tag names, without one of `_likeliest`."""
    network, _, tag = name.partition(".")
    return _input(_published(network)[tag or _likeliest(network)])


def published_name(name: str, weights: Path | None) -> str:
    """A network's canonical name with the tag of its published weights, if that is what the file holds.

    Args:
        name: of any library; one that has a tag, or is not torchvision's, is returned as it is.
        weights: the file; recognised by its hash, or once it was converted by the one that its name keeps.
    """
    if weights is None or not name.startswith(_LIBRARY) or "." in name or not weights.is_file():
        return name
    sha256 = sha256_of(weights)
    for tag, published in _published(name.removeprefix(_LIBRARY)).items():
        found = re.search(r"-([0-9a-f]{8,})\.pth$", published.url)
        if found is not None and (sha256.startswith(found[1]) or found[1] in weights.stem):
            return f"{name}.{tag}"
    return name


def assumed_input(name: str) -> str | None:
    """For weights that nobody knows: which preparation was assumed, and how to say another.

    Args:
        name: from `published_name`.

    Returns:
        A sentence for the user; None where the name has a tag, or where all published weights want the same.
    """
    network = name.removeprefix(_LIBRARY)
    if not name.startswith(_LIBRARY) or "." in network:
        return None
    rules = {tag: _input(weights) for tag, weights in _published(network).items()}
    assumed = _likeliest(network)
    others = [f"{name}.{tag} for {_rule(rule)}" for tag, rule in rules.items() if rule != rules[assumed]]
    if not others:
        return None
    return f"assumed as {assumed} has it, {_rule(rules[assumed])}; say otherwise by the name: {', '.join(others)}"


def _published(network: str) -> dict[str, Any]:
    from torchvision.models import get_model_weights

    return {weights.name: weights for weights in get_model_weights(network)}


def _likeliest(network: str) -> str:
    """The tag of torchvision's default, or of the last ones, among those for the smallest pictures.

    Larger ones are those of weights that were tuned on, and of a vision transformer that is built in another way.
    """
    from torchvision.models import get_model_weights

    published = _published(network)
    smallest = min(_input(weights).height for weights in published.values())
    small = [tag for tag, weights in published.items() if _input(weights).height == smallest]
    default = get_model_weights(network).DEFAULT.name
    return default if default in small else small[-1]


def _input(weights: Any) -> ImageInput:
    preset = weights.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    interpolation: Interpolation = "bicubic" if preset.interpolation.value == "bicubic" else "bilinear"
    return ImageInput(
        crop, crop, tuple(preset.mean), tuple(preset.std), crop_fraction=crop / resize, interpolation=interpolation
    )


def _rule(spec: ImageInput) -> str:
    return f"{spec.height} of {round(spec.height / spec.crop_fraction)} px, {spec.interpolation}"
