"""Model construction by name."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdedge.models.custom import check_unchanged, code_sha256, count_classes, make
from kdedge.models.custom_path import is_factory
from kdedge.models.model_names import import_timm
from kdedge.models.model_spec import ModelSpec
from kdedge.models.pretrained import torchvision_input
from kdedge.models.resnet_layouts import RESNETS
from kdedge.models.small_resnet import SmallResNet
from kdedge.models.stem import reduce_stride
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image import ImageInput, Interpolation

__all__ = [
    "IMAGENET_CLASSES",
    "IMAGENET_MEAN",
    "IMAGENET_SIZE",
    "IMAGENET_STD",
    "build_model",
    "create_timm",
    "head_tensors",
    "own_classes",
    "pretrained_input",
    "pretrained_labels",
    "make_spec",
]

IMAGENET_CLASSES = 1000
IMAGENET_SIZE = 224
"""Input size of most ImageNet models in px."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def make_spec(name: str, classes: int, *, fresh_stem: bool = True) -> ModelSpec:
    """Specify a model as it is now; for a factory with the hash of its file."""
    return ModelSpec(name, classes, fresh_stem=fresh_stem, code_sha256=code_sha256(name) if is_factory(name) else None)


def build_model(spec: ModelSpec, size: int | tuple[int, int]) -> nn.Module:
    """Build a model with random weights.

    Args:
        spec: model specification.
        size: side of its square input in px, or height and width of its features.

    Raises:
        UsageError: A factory's file has changed, or its model has a different number of classes.
    """
    if is_factory(spec.name):
        return _build_own(spec, size)
    library, _, bare = spec.name.partition(":")
    if library == "small":
        model: nn.Module = SmallResNet(RESNETS[bare], spec.classes)
    elif library == "timm":
        model = create_timm(bare, size, num_classes=spec.classes)
    else:
        from torchvision.models import get_model

        # The auxiliary classifiers of GoogLeNet and Inception return more than logits. Both warn without init_weights.
        network, _, tag = bare.partition(".")
        inception = {"aux_logits": False, "init_weights": True}
        extra: dict[str, Any] = inception if network in {"googlenet", "inception_v3"} else {}
        if tag and network.startswith("vit_"):  # position embeddings are specific to one image size
            extra["image_size"] = torchvision_input(bare).height
        model = cast(nn.Module, get_model(network, weights=None, num_classes=spec.classes, **extra))
    reduce_stride(model, spec.stride_factor, size, fresh=spec.fresh_stem)
    return model


def create_timm(bare: str, size: int | tuple[int, int], **options: Any) -> nn.Module:
    """Create a network of timm; one with position embeddings for a fixed size is created for `size` instead.

    Args:
        bare: name without library.
        size: side of its square input in px, or height and width.
        options: further arguments of `timm.create_model`; weights are converted to the size.

    Raises:
        UsageError: the network does not support the size.
    """
    timm = import_timm()
    config = timm.get_pretrained_cfg(bare)
    height, width = _sides(size)
    if not config.fixed_input_size or tuple(config.input_size[-2:]) == (height, width):
        return cast(nn.Module, timm.create_model(bare, **options))
    try:
        return cast(nn.Module, timm.create_model(bare, img_size=size, **options))
    except (AssertionError, TypeError, ValueError) as error:
        raise UsageError(
            f"timm:{bare} cannot take images of {width} × {height} px: {error}. Choose another --size (such as "
            f"{config.input_size[-1]}) or another model."
        ) from error


def _build_own(spec: ModelSpec, size: int | tuple[int, int]) -> nn.Module:
    if spec.code_sha256 is not None:
        check_unchanged(spec.name, spec.code_sha256)
    model = make(spec.name, spec.classes)
    reduce_stride(model, spec.stride_factor, size, fresh=spec.fresh_stem)
    found = count_classes(spec.name, model, _example(*_sides(size)))
    if found != spec.classes:
        raise UsageError(
            f"The model of {spec.name} returns {found} logits, expected {spec.classes}, one per class. "
            "The factory should take num_classes and use it for its last layer."
        )
    return model


def head_tensors(name: str, size: int | tuple[int, int]) -> tuple[str, ...]:
    """Return the tensors whose first dimension is the number of classes, found by building two models."""
    if is_factory(name):  # on a real device: user code may compute with its tensors
        few, more = (make(name, classes).state_dict() for classes in (2, 3))
    else:
        with torch.device("meta"):
            few, more = (
                build_model(ModelSpec(name, classes, fresh_stem=False), size).state_dict() for classes in (2, 3)
            )
    return tuple(tensor for tensor in few if few[tensor].shape != more[tensor].shape)


def own_classes(name: str, spec_input: ImageInput) -> int:
    """Return the default number of classes of a model.

    Raises:
        UsageError: A factory has no default.
    """
    if is_factory(name):
        return count_classes(name, make(name), _example(spec_input.height, spec_input.width))
    return IMAGENET_CLASSES


def pretrained_input(name: str) -> ImageInput:
    """Return the input that a model's pretrained weights expect; those of the tag if the name has one.

    Raises:
        UsageError: A factory's description cannot be read.
    """
    library, _, bare = name.partition(":")
    if is_factory(name):
        return _timm_input(name, getattr(make(name, 2), "pretrained_cfg", {}))
    if library == "timm":
        return _timm_input(name, import_timm().get_pretrained_cfg(bare).to_dict())
    if library == "torchvision":
        return torchvision_input(bare)
    return ImageInput(32, 32, IMAGENET_MEAN, IMAGENET_STD)


def pretrained_labels(name: str, classes: int) -> tuple[str, ...]:
    """Return ImageNet's class names for a model with 1000 classes, otherwise class indices."""
    if classes == IMAGENET_CLASSES:
        from torchvision.models import ResNet18_Weights

        return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return tuple(str(index) for index in range(classes))


def _timm_input(name: str, config: Mapping[str, Any]) -> ImageInput:
    """Convert timm's description; missing values are those of ImageNet models."""
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
            f"The model of {name} has an unreadable pretrained_cfg ({error}). Expected a dict such as "
            '{"input_size": (3, 224, 224), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 0.875}.'
        ) from error


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _example(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def _interpolation(name: str) -> Interpolation:
    return "bicubic" if name == "bicubic" else "bilinear"
