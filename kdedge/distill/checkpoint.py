"""Weights and optimizer state on the disk: safetensors with a JSON note, whole or not at all, never a pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import SGD

from kdedge_runtime.errors import UsageError
from kdedge_runtime.files import staged

__all__ = ["restore", "save_checkpoint", "save_weights", "weights_of"]

_MODEL, _MOMENTUM = "model.", "momentum."


def save_weights(path: Path, model: nn.Module, note: dict[str, Any]) -> None:
    """Write a model's weights and a JSON note about them."""
    _write(path, {_MODEL + name: value for name, value in model.state_dict().items()}, note)


def save_checkpoint(path: Path, model: nn.Module, optimizer: SGD, note: dict[str, Any]) -> None:
    """Write all that training needs to go on exactly: weights, momentum and a JSON note."""
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum
    _write(path, tensors, note)


def restore(path: Path, model: nn.Module, optimizer: SGD) -> dict[str, Any]:
    """Load a checkpoint in place and return its note."""
    tensors, note = _read(path)
    model.load_state_dict(_part(tensors, _MODEL))
    momentum = _part(tensors, _MOMENTUM)
    for name, parameter in model.named_parameters():
        if name in momentum:
            # Keep the parameter's own memory layout: another one would change the order of sums.
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum[name])
    return note


def weights_of(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The model's tensors in a checkpoint or weights file, and the note about them."""
    tensors, note = _read(path)
    return _part(tensors, _MODEL), note


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _write(path: Path, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
    flat = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with staged(path) as temporary:
        save_file(flat, temporary, metadata={"kdedge": json.dumps(note)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {}).get("kdedge", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, note  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"Cannot read the checkpoint {path}: {error}. Expected a file written by kdedge.") from error
