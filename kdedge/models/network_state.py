"""Weights of a network under the tensor names of its library's current version.

Published files keep the names of the version that wrote them. torchvision and timm convert them while loading.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from kdedge.models.model_registry import create_timm
from kdedge.models.weight_files import read_state

__all__ = ["read_network_state"]

_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Tensors of classifiers that only training uses, by network."""
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def read_network_state(name: str, file: Path, size: int) -> dict[str, Tensor]:
    """Read a weights file for a network.

    Args:
        name: network with its library.
        file: weights file, see `read_state`.
        size: size of the network's square input in px, for position embeddings.

    Returns:
        Tensors by name. A file of another network is returned unchanged, so that loading it reports the difference.

    Raises:
        UsageError: the file is missing, damaged, or a pickle that would execute code.
    """
    state = read_state(file)
    library, _, bare = name.partition(":")
    if library == "torchvision":
        return _of_torchvision(bare.partition(".")[0], state)
    return _of_timm(bare, state, size) if library == "timm" else state


def _of_torchvision(network: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    unused = _AUXILIARY.get(network, ())
    kept = {key: value for key, value in state.items() if not key.startswith(unused)} if unused else state
    if network.startswith("densenet"):
        return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in kept.items()}
    return kept


def _of_timm(bare: str, state: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """Convert weights with timm's own filter, if they have other names or shapes than the network."""
    with torch.device("meta"):
        expected = {key: value.shape for key, value in create_timm(bare, size).state_dict().items()}
    if all(key in state and state[key].shape == shape for key, shape in expected.items()):
        return state
    try:
        model = create_timm(bare, size, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except (RuntimeError, KeyError):  # weights of another network, or of one with other classes
        return state
    converted: dict[str, Tensor] = model.state_dict()
    return converted
