"""Published torchvision weights; a model may have several, each with its own preprocessing.

The files are identified by the hash in their names: the SHA-256 of `resnet50-0676ba61.pth` begins with 0676ba61. For
other files the preprocessing is selected by a tag after the model name, as in timm:
`torchvision:resnet50.IMAGENET1K_V1`.
"""

import re
from pathlib import Path
from typing import Any

from kdedge.models.digest import state_sha256
from kdedge_runtime.modalities.image import ImageInput, Interpolation

__all__ = [
    "assumed_input",
    "default_tag",
    "published_name",
    "torchvision_input",
    "torchvision_tags",
    "torchvision_weights",
]

_LIBRARY = "torchvision:"


def torchvision_tags(network: str) -> list[str]:
    """Return the tags of a model's published weights, such as `IMAGENET1K_V1`."""
    return list(torchvision_weights(network))


def torchvision_input(name: str) -> ImageInput:
    """Return the input of a model's published weights: of the tag, or of `default_tag` without one."""
    network, _, tag = name.partition(".")
    return _input(torchvision_weights(network)[tag or default_tag(network)])


def published_name(name: str, weights: Path | None) -> str:
    """Return a model's canonical name with the tag of its published weights, if the file holds them.

    Args:
        name: model name of any library; returned unchanged if it has a tag or is not from torchvision.
        weights: weights file, recognized by its hash, or after conversion by the hash in its name.
    """
    if weights is None or not name.startswith(_LIBRARY) or "." in name or not weights.is_file():
        return name
    sha256 = state_sha256(weights)
    for tag, published in torchvision_weights(name.removeprefix(_LIBRARY)).items():
        found = re.search(r"-([0-9a-f]{8,})\.pth$", published.url)
        if found is not None and (sha256.startswith(found[1]) or found[1] in weights.stem):
            return f"{name}.{tag}"
    return name


def assumed_input(name: str) -> str | None:
    """Describe the assumed preprocessing of unrecognized weights and how to change it.

    Args:
        name: model name from `published_name`.

    Returns:
        A sentence for the user; None if the name has a tag, or if all published weights use the same preprocessing.
    """
    network = name.removeprefix(_LIBRARY)
    if not name.startswith(_LIBRARY) or "." in network:
        return None
    rules = {tag: _input(weights) for tag, weights in torchvision_weights(network).items()}
    assumed = default_tag(network)
    others = [f"{name}.{tag} for {_rule(rule)}" for tag, rule in rules.items() if rule != rules[assumed]]
    if not others:
        return None
    return (
        f"assumed as for {assumed}, {_rule(rules[assumed])}; to change it, use a model name with tag: "
        f"{', '.join(others)}"
    )


def torchvision_weights(network: str) -> dict[str, Any]:
    """Return a network's published weights, members of `torchvision.models.WeightsEnum`, by tag."""
    from torchvision.models import get_model_weights

    return {weights.name: weights for weights in get_model_weights(network)}


def default_tag(network: str) -> str:
    """Return the tag of torchvision's default, or of the last weights, among those with the smallest input.

    Larger inputs belong to fine-tuned weights, and to a vision transformer with a different architecture.
    """
    from torchvision.models import get_model_weights

    published = torchvision_weights(network)
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
