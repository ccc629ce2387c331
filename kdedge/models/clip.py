"""Networks of OpenCLIP as image classifiers; see `kdedge.models.zero_shot`."""

import difflib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.network_weights import NetworkWeights
from kdedge.models.published_weights import PublishedWeights
from kdedge.models.zero_shot import ZeroShot
from kdedge_runtime.errors import MissingDependency, UsageError
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["ClipClassifier", "build_clip", "clip_name", "find_published_clip"]

_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of weights files on the Hugging Face Hub, in order of preference."""


class ClipClassifier(nn.Module):
    """Image encoder with text embeddings as its last matrix."""

    def __init__(self, visual: nn.Module, embeddings: Tensor, bias: Tensor | None) -> None:
        """Initialize the classifier.

        Args:
            visual: image encoder, `[N, 3, H, W]` to `[N, D]`, or to a tuple that begins with it.
            embeddings: unit text embeddings times the logit scale, `[K, D]`.
            bias: logit bias, a scalar, or None.
        """
        super().__init__()
        self.visual = visual
        classes, width = embeddings.shape
        self.head = nn.Linear(width, classes, bias=bias is not None)
        with torch.no_grad():
            self.head.weight.copy_(embeddings)
            if bias is not None:
                self.head.bias.fill_(bias.item())

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits `[N, K]` of normalized images: scaled cosine similarities with the text embeddings."""
        output = self.visual(x)
        features = output[0] if isinstance(output, tuple) else output  # CoCa adds the tokens of its decoder
        logits: Tensor = self.head(F.normalize(features, dim=-1))
        return logits


def clip_name(name: str) -> str:
    """Return a name as `clip:MODEL/TAG`, or `clip:MODEL` for a file of the user.

    Raises:
        UsageError: OpenCLIP has no such network or tag; the message lists similar ones. Or the name is a location.
        MissingDependency: OpenCLIP is not installed.
    """
    if ":" in name.removeprefix("clip:"):
        raise UsageError(
            f"{name} is a location, such as a repository of the Hugging Face Hub, but kdedge only downloads weights "
            "that OpenCLIP lists, as in clip:MODEL/TAG. Download others, and use clip:MODEL --teacher-weights FILE "
            "(--weights FILE for an export)."
        )
    open_clip = _import_open_clip()
    network, tag = _parts(name)
    if open_clip.get_model_config(network) is None:
        near = difflib.get_close_matches(network, open_clip.list_models(), n=3)
        hint = f"Did you mean {', '.join(f'clip:{one}' for one in near)}?" if near else "Try clip:ViT-B-32."
        raise UsageError(f"OpenCLIP has no network {network!r}. {hint}")
    tags = open_clip.list_pretrained_tags_by_model(network)
    if tag and not open_clip.get_pretrained_cfg(network, tag):
        raise UsageError(
            f"OpenCLIP has no weights {tag!r} of {network}. Expected clip:{network}/TAG with one of: "
            f"{', '.join(tags) or 'none; use --teacher-weights FILE'}."
        )
    return name


def find_published_clip(name: str) -> PublishedWeights | None:
    """Describe the published weights of a network, without a connection; None for a name without a tag."""
    network, tag = _parts(name)
    if not tag:
        return None
    config = _import_open_clip().get_pretrained_cfg(network, tag)
    repository, _, file = str(config.get("hf_hub", "")).rpartition("/")
    if not repository:
        return PublishedWeights(name, config["url"], None)
    from huggingface_hub import constants  # required by OpenCLIP

    return PublishedWeights(
        name,
        f"{constants.ENDPOINT}/{repository}",
        license=None,
        repository=repository,
        names=_file_names(file) if file else _HUB_FILES,
    )


def build_clip(weights: NetworkWeights, zero_shot: ZeroShot) -> tuple[ClipClassifier, ImageInput]:
    """Build a classifier, and its input.

    Args:
        weights: network and its weights.
        zero_shot: classes and prompts.

    Raises:
        UsageError: the weights do not fit, the text encoder cannot be loaded, or the image encoder is not supported.
        MissingDependency: A package of the text encoder is not installed.
    """
    open_clip = _import_open_clip()
    network, tag = _parts(weights.network)
    config = open_clip.get_pretrained_cfg(network, tag) if tag else {}
    rules = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config}
    try:
        model = open_clip.create_model(
            network,
            pretrained=str(weights.file),
            force_quick_gelu=config.get("quick_gelu", False),
            force_preprocess_cfg=rules,
            weights_only=True,
        ).eval()
        tokenizer = open_clip.get_tokenizer(network)
        with torch.no_grad():
            unit = open_clip.build_zero_shot_classifier(model, tokenizer, zero_shot.classes, zero_shot.prompts)
            classifier = ClipClassifier(model.visual, model.logit_scale.exp() * unit.T, model.logit_bias)
            spec_input = _input(model.visual.preprocess_cfg)
            classifier(torch.zeros(1, 3, spec_input.height, spec_input.width))  # fails for unsupported encoders
    except ImportError as error:
        raise MissingDependency(f"{weights.network} needs another package: {error}. Install it with pip.") from error
    except Exception as error:  # damaged or foreign files, and downloads of tokenizers, can raise any exception
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UsageError(
            f"Cannot load {weights.network} from {weights.file}: {why.strip(' .')}. Expected the weights of exactly "
            "this network of OpenCLIP, whose image encoder returns one vector for each image."
        ) from error
    return classifier, spec_input


def _input(config: dict[str, Any]) -> ImageInput:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return ImageInput(
        height,
        width,
        tuple(config["mean"]),
        tuple(config["std"]),
        resize="squash" if config["resize_mode"] == "squash" else "crop",
        interpolation="bicubic" if config["interpolation"] == "bicubic" else "bilinear",
    )


def _file_names(file: str) -> tuple[str, ...]:
    stem, _, suffix = file.rpartition(".")
    return (f"{stem}.safetensors", file) if suffix in ("bin", "pt", "pth") else (file,)


def _parts(name: str) -> tuple[str, str]:
    network, _, tag = name.removeprefix("clip:").partition("/")
    return network, tag


def _import_open_clip() -> Any:
    with needs_package("A model named clip:…", "OpenCLIP", "pip install -e '.[open_clip]' in the checkout"):
        import open_clip
    return open_clip
