"""Build a model by its name."""

import difflib
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from kdedge.models.resnet import RESNETS, SmallResNet
from kdedge.models.stride import reduce_stride
from kdedge_runtime.errors import MissingDependency, UsageError
from kdedge_runtime.metadata import ImageInput, Interpolation

__all__ = [
    "IMAGENET_CLASSES",
    "ModelSpec",
    "build",
    "canonical_name",
    "head_tensors",
    "pretrained_input",
    "pretrained_labels",
]

IMAGENET_CLASSES = 1000
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build the same network again."""

    name: str
    """With its library: `torchvision:resnet18`, `timm:mobilenetv3_small_050`, `small:resnet20`."""
    classes: int
    stride_factor: int = 1
    """How many times finer the resolution is than the network's own, see `kdedge.models.reduce_stride`."""
    fresh_stem: bool = True
    """Whether the stem was adapted as that of an untrained network."""


def canonical_name(name: str) -> str:
    """A model's name with its library: bare names are looked up in torchvision, then among the small networks.

    Raises:
        UsageError: no such model; the message names the nearest ones.
        MissingDependency: a timm name without timm.
    """
    library, _, bare = name.rpartition(":")
    libraries = {"torchvision": _torchvision_names, "small": lambda: list(RESNETS), "timm": _timm_names}
    searched = [library] if library else ["torchvision", "small"]
    if searched[0] not in libraries:
        raise UsageError(f"Unknown model library {library!r} in {name!r}. Expected torchvision:, timm: or small:.")
    for candidate in searched:
        if bare in libraries[candidate]():
            return f"{candidate}:{bare}"
    near = [
        f"{candidate}:{match}"
        for candidate in searched
        for match in difflib.get_close_matches(bare, libraries[candidate](), n=3)
    ]
    hint = f"Did you mean {', '.join(near)}?" if near else "Try resnet18, mobilenet_v3_small or resnet10w16."
    raise UsageError(f"There is no model {name!r}. {hint}")


def build(spec: ModelSpec, size: int) -> nn.Module:
    """A network with random weights.

    Args:
        spec: what to build.
        size: side of its square input, in px.
    """
    library, _, bare = spec.name.partition(":")
    if library == "small":
        model: nn.Module = SmallResNet(RESNETS[bare], spec.classes)
    elif library == "timm":
        model = cast(nn.Module, _timm().create_model(bare, num_classes=spec.classes))
    else:
        from torchvision.models import get_model

        # The auxiliary classifiers of GoogLeNet and Inception return more than logits.
        extra: dict[str, Any] = {"aux_logits": False} if bare in {"googlenet", "inception_v3"} else {}
        model = cast(nn.Module, get_model(bare, weights=None, num_classes=spec.classes, **extra))
    reduce_stride(model, spec.stride_factor, size, fresh=spec.fresh_stem)
    return model


def head_tensors(name: str, size: int) -> tuple[str, ...]:
    """The tensors of a network whose first dimension is the number of classes, found by building it for two numbers."""
    with torch.device("meta"):
        few, more = (build(ModelSpec(name, classes, fresh_stem=False), size).state_dict() for classes in (2, 3))
    return tuple(tensor for tensor in few if few[tensor].shape != more[tensor].shape)


def pretrained_input(name: str) -> ImageInput:
    """The input that a library's trained weights of this model expect."""
    library, _, bare = name.partition(":")
    if library == "timm":
        config = _timm().get_pretrained_cfg(bare)
        _, height, width = config.input_size
        interpolation = _interpolation(config.interpolation)
        return ImageInput(
            height, width, config.mean, config.std, crop_fraction=config.crop_pct, interpolation=interpolation
        )
    if library == "torchvision":
        from torchvision.models import get_model_weights

        preset = list(get_model_weights(bare))[-1].transforms()
        crop, resize = preset.crop_size[0], preset.resize_size[0]
        interpolation = _interpolation(preset.interpolation.value)
        return ImageInput(
            crop, crop, tuple(preset.mean), tuple(preset.std), crop_fraction=crop / resize, interpolation=interpolation
        )
    return ImageInput(32, 32, IMAGENET_MEAN, IMAGENET_STD)


def pretrained_labels(name: str, classes: int) -> tuple[str, ...]:
    """ImageNet's class names when the model has its thousand classes, else numbers."""
    if classes == IMAGENET_CLASSES:
        from torchvision.models import ResNet18_Weights

        return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return tuple(str(index) for index in range(classes))


def _interpolation(name: str) -> Interpolation:
    return "bicubic" if name == "bicubic" else "bilinear"


def _torchvision_names() -> list[str]:
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def _timm_names() -> list[str]:
    return list(_timm().list_models())


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependency(
            "Models named timm:… need the timm package, which is not installed. Type: pip install timm"
        ) from error
    return timm
