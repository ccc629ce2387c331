"""Build a model by its name."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn

from kdedge.models.factory import code_sha256, count_classes, factory_name, is_factory, make, require_unchanged
from kdedge.models.published import torchvision_input, torchvision_names
from kdedge.models.resnet import RESNETS, SmallResNet
from kdedge.models.stride import reduce_stride
from kdedge_runtime.errors import MissingDependency, UsageError
from kdedge_runtime.metadata import ImageInput, Interpolation

__all__ = [
    "IMAGENET_CLASSES",
    "IMAGENET_MEAN",
    "IMAGENET_SIZE",
    "IMAGENET_STD",
    "ModelSpec",
    "build",
    "canonical_name",
    "head_tensors",
    "own_classes",
    "pretrained_input",
    "pretrained_labels",
    "specify",
]

IMAGENET_CLASSES = 1000
IMAGENET_SIZE = 224
"""Side of the input of most of its networks, in px."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build the same network again."""

    name: str
    """With its library (`torchvision:resnet18`, `timm:resnet18.a1_in1k`, `small:resnet20`) or file (`/n.py:make`).

    Behind a dot stands the tag of published weights, where these are known.
    """
    classes: int
    stride_factor: int = 1
    """How many times finer the resolution is than the network's own, see `kdedge.models.reduce_stride`."""
    fresh_stem: bool = True
    """Whether the stem was adapted as that of an untrained network."""
    code_sha256: str | None = None
    """Of a factory's file; it must still be that one when the network is built. None for a library's network."""


def specify(name: str, classes: int, *, fresh_stem: bool = True) -> ModelSpec:
    """A network as it is today: that of a factory with the hash of its file."""
    return ModelSpec(name, classes, fresh_stem=fresh_stem, code_sha256=code_sha256(name) if is_factory(name) else None)


def canonical_name(name: str) -> str:
    """A model's name with its library: bare names are looked up in torchvision, then among the small networks.

    The name of a factory gets the absolute path of its file.

    Raises:
        UsageError: no such model; the message names the nearest ones.
        MissingDependency: a timm name without timm.
    """
    if is_factory(name):
        return factory_name(name)
    if "hf-hub:" in name or "hf_hub:" in name:
        raise UsageError(
            f"{name} is on the Hugging Face hub, and kdedge downloads nothing. Download its weights, and name the "
            "network itself: timm:NAME --weights FILE (--teacher-weights FILE for a teacher)."
        )
    library, _, bare = name.rpartition(":")
    libraries = {"torchvision": torchvision_names, "small": lambda: list(RESNETS), "timm": _timm_names}
    searched = [library] if library else ["torchvision", "small"]
    if searched[0] not in libraries:
        raise UsageError(
            f"Unknown model library {library!r} in {name!r}. Expected torchvision:, timm: or small: and a name, "
            "or FILE.py:FUNCTION."
        )
    for candidate in searched:
        if bare in libraries[candidate]():
            return f"{candidate}:{bare}"
    elsewhere = [f"timm:{bare}"] if not library and find_spec("timm") and bare in _timm_names() else []
    near = elsewhere or [
        f"{candidate}:{match}"
        for candidate in searched
        for match in difflib.get_close_matches(bare, libraries[candidate](), n=3)
    ]
    hint = f"Did you mean {', '.join(near)}?" if near else "Try resnet18, mobilenet_v3_small or resnet10w16."
    if "/" in name and not elsewhere:
        raise UsageError(f"There is no run folder and no model {name!r}. {hint}")
    raise UsageError(f"There is no model {name!r}. {hint}")


def build(spec: ModelSpec, size: int) -> nn.Module:
    """A network with random weights.

    Args:
        spec: what to build.
        size: side of its square input, in px.

    Raises:
        UsageError: a factory's file has changed, or its model has another number of classes.
    """
    if is_factory(spec.name):
        return _build_own(spec, size)
    library, _, bare = spec.name.partition(":")
    if library == "small":
        model: nn.Module = SmallResNet(RESNETS[bare], spec.classes)
    elif library == "timm":
        model = cast(nn.Module, _timm().create_model(bare, num_classes=spec.classes))
    else:
        from torchvision.models import get_model

        # The auxiliary classifiers of GoogLeNet and Inception return more than logits.
        network, _, tag = bare.partition(".")
        extra: dict[str, Any] = {"aux_logits": False} if network in {"googlenet", "inception_v3"} else {}
        if tag and network.startswith("vit_"):  # whose weights know the places in a picture of one size
            extra["image_size"] = torchvision_input(bare).height
        model = cast(nn.Module, get_model(network, weights=None, num_classes=spec.classes, **extra))
    reduce_stride(model, spec.stride_factor, size, fresh=spec.fresh_stem)
    return model


def _build_own(spec: ModelSpec, size: int) -> nn.Module:
    if spec.code_sha256 is not None:
        require_unchanged(spec.name, spec.code_sha256)
    model = make(spec.name, spec.classes)
    reduce_stride(model, spec.stride_factor, size, fresh=spec.fresh_stem)
    found = count_classes(spec.name, model, size, size)
    if found != spec.classes:
        raise UsageError(
            f"The model of {spec.name} gives {found} logits, expected {spec.classes}, one a class. "
            "Let the factory take num_classes, and give its last layer that many outputs."
        )
    return model


def head_tensors(name: str, size: int) -> tuple[str, ...]:
    """The tensors of a network whose first dimension is the number of classes, found by building it for two numbers."""
    if is_factory(name):  # in earnest: the user's code may compute with its tensors
        few, more = (make(name, classes).state_dict() for classes in (2, 3))
    else:
        with torch.device("meta"):
            few, more = (build(ModelSpec(name, classes, fresh_stem=False), size).state_dict() for classes in (2, 3))
    return tuple(tensor for tensor in few if few[tensor].shape != more[tensor].shape)


def own_classes(name: str, spec_input: ImageInput) -> int:
    """For how many classes a network is built when nobody says.

    Raises:
        UsageError: a factory has no default.
    """
    if is_factory(name):
        return count_classes(name, make(name), spec_input.height, spec_input.width)
    return IMAGENET_CLASSES


def pretrained_input(name: str) -> ImageInput:
    """The input that the trained weights of this model expect; those of its tag where its name has one.

    Raises:
        UsageError: a factory describes it in a way that cannot be read.
    """
    library, _, bare = name.partition(":")
    if is_factory(name):
        return _timm_input(name, getattr(make(name, 2), "pretrained_cfg", {}))
    if library == "timm":
        return _timm_input(name, _timm().get_pretrained_cfg(bare).to_dict())
    if library == "torchvision":
        return torchvision_input(bare)
    return ImageInput(32, 32, IMAGENET_MEAN, IMAGENET_STD)


def pretrained_labels(name: str, classes: int) -> tuple[str, ...]:
    """ImageNet's class names when the model has its thousand classes, else numbers."""
    if classes == IMAGENET_CLASSES:
        from torchvision.models import ResNet18_Weights

        return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return tuple(str(index) for index in range(classes))


def _timm_input(name: str, config: Mapping[str, Any]) -> ImageInput:
    """From timm's description; what it leaves out is as ImageNet's models have it."""
    try:
        _, height, width = config.get("input_size", (3, IMAGENET_SIZE, IMAGENET_SIZE))
        (red, green, blue), (red_std, green_std, blue_std) = (
            config.get(key, default) for key, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
        )
        return ImageInput(
            int(height),
            int(width),
            (float(red), float(green), float(blue)),
            (float(red_std), float(green_std), float(blue_std)),
            crop_fraction=float(config.get("crop_pct", 1.0)),
            interpolation=_interpolation(config.get("interpolation", "bilinear")),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"The model of {name} has a pretrained_cfg that cannot be read ({error}). Expected a dict such as "
            '{"input_size": (3, 224, 224), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 0.875}.'
        ) from error


def _interpolation(name: str) -> Interpolation:
    return "bicubic" if name == "bicubic" else "bilinear"


def _timm_names() -> list[str]:
    """Architectures, and architectures with the tag of their weights: `resnet18`, `resnet18.a1_in1k`."""
    timm = _timm()
    return [*timm.list_models(), *timm.list_models(include_tags=True)]


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependency(
            "Models named timm:… need the timm package, which is not installed. Type: pip install timm"
        ) from error
    return timm
