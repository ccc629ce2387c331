"""Published weights of the networks of torchvision and timm."""

from dataclasses import dataclass
from pathlib import Path

from kdedge.models.model_names import canonical_name, import_timm
from kdedge.models.pretrained import default_tag, torchvision_weights
from kdedge.models.weights_download import fetch_from_hugging_face, fetch_from_url

__all__ = ["PublishedWeights", "find_published"]

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weights files on the Hugging Face Hub, in order of preference."""


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of a network that its library publishes."""

    network: str
    """Network with library and tag, such as `torchvision:resnet18.IMAGENET1K_V1`."""
    url: str
    """Address of the file, or of its repository on the Hugging Face Hub."""
    license: str | None
    """License of the weights, as stated by the library; None if it states none."""
    recipe: str | None = None
    """Address of the training recipe, as stated by torchvision."""
    repository: str | None = None
    """Repository on the Hugging Face Hub; None for a file."""
    names: tuple[str, ...] = _HUB_FILES
    """Possible file names in the repository."""

    def fetch(self) -> Path:
        """Return the local file, downloaded if it is not in the library's cache.

        Raises:
            UsageError: the file cannot be obtained.
            MissingDependency: a package for the download is not installed.
        """
        if self.repository is None:
            return fetch_from_url(self.network, self.url)
        return fetch_from_hugging_face(self.network, self.repository, self.names)


def find_published(name: str) -> PublishedWeights | None:
    """Describe the published weights of a network, without a connection.

    Args:
        name: name of a network. A tag selects among several weights; without one it is the library's default.

    Returns:
        The weights, or None for a network without any.

    Raises:
        UsageError: there is no such network.
        MissingDependency: A timm name is given without timm.
    """
    canonical = canonical_name(name)
    library, _, bare = canonical.partition(":")
    if library == "torchvision":
        return _of_torchvision(bare)
    return _of_timm(bare) if library == "timm" else None


def _of_torchvision(bare: str) -> PublishedWeights | None:
    network, _, tag = bare.partition(".")
    published = torchvision_weights(network)
    if not published:
        return None
    tag = tag or default_tag(network)
    weights = published[tag]
    meta = weights.meta
    return PublishedWeights(f"torchvision:{network}.{tag}", weights.url, meta.get("license"), meta.get("recipe"))


def _of_timm(bare: str) -> PublishedWeights | None:
    config = import_timm().get_pretrained_cfg(bare)
    if not config.has_weights:
        return None
    name = f"timm:{config.architecture}" + (f".{config.tag}" if config.tag else "")
    if not config.hf_hub_id:
        return PublishedWeights(name, config.url, config.license)
    from huggingface_hub import constants  # required by timm

    names = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    return PublishedWeights(
        name,
        f"{constants.ENDPOINT}/{config.hf_hub_id}",
        config.license,
        repository=config.hf_hub_id,
        names=names,
    )
