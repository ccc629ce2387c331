"""Checkpoints as safetensors with a JSON note, written atomically and without pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from kdedge.models.run_folder import writing
from kdedge.models.weight_files import MODEL_PREFIX, NOTE, TRAINING_PREFIX, load_state
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import atomic_path

__all__ = ["restore", "save_checkpoint", "save_weights"]

_OPTIMIZER, _PROJECTION, _STATE = (TRAINING_PREFIX + part for part in ("optimizer.", "projection.", "state."))


def save_weights(path: Path, model: nn.Module, note: dict[str, Any]) -> None:
    """Write a model's weights with a JSON note.

    Raises:
        KdedgeError: the file cannot be written; an existing file is kept.
    """
    _write(path, _state(MODEL_PREFIX, model), note)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    projections: nn.Module,
    optimizer: Optimizer,
    note: dict[str, Any],
    state: dict[str, Tensor],
) -> None:
    """Write the complete training state, so that training can be resumed exactly.

    Args:
        path: file to write.
        model: student model.
        projections: auxiliary layers that are trained with the student and discarded afterwards.
        optimizer: optimizer over the parameters of both.
        note: JSON values.
        state: other tensors, such as states of random number generators.

    Raises:
        KdedgeError: the file cannot be written; an existing file is kept.
    """
    tensors = _state(MODEL_PREFIX, model) | _state(_PROJECTION, projections)
    for name, parameter in _parameters(model, projections).items():
        for kind, value in optimizer.state[parameter].items():
            if value is not None:
                tensors[f"{_OPTIMIZER}{kind}.{name}"] = value
    _write(path, tensors | {_STATE + name: value for name, value in state.items()}, note)


def restore(
    path: Path, model: nn.Module, projections: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Load a checkpoint in place and return its note and other tensors.

    Raises:
        UsageError: the file is damaged, is not a checkpoint, or belongs to another model.
    """
    tensors, note = _read(path)
    load_state(model, _part(tensors, MODEL_PREFIX), str(path))
    load_state(projections, _part(tensors, _PROJECTION), str(path))
    parameters = _parameters(model, projections)
    for key, value in _part(tensors, _OPTIMIZER).items():
        kind, _, name = key.partition(".")
        if name not in parameters:
            raise UsageError(f"{path} holds the optimizer state of {name}, which this run does not train.")
        parameter = parameters[name]
        if kind == "step":  # only a captured step counts on the device
            at = parameter.device if optimizer.defaults.get("capturable") else value.device
            optimizer.state[parameter][kind] = value.to(at)
        else:
            # Keep the parameter's memory layout: another one would change the order of summation.
            optimizer.state[parameter][kind] = torch.empty_like(parameter).copy_(value)
    return note, _part(tensors, _STATE)


def _parameters(model: nn.Module, projections: nn.Module) -> dict[str, nn.Parameter]:
    return dict(nn.ModuleDict({"model": model, "projection": projections}).named_parameters())


def _state(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in module.state_dict().items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _write(path: Path, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
    with writing(path), atomic_path(path) as temporary:
        save_file(_apart(tensors), temporary, metadata={NOTE: json.dumps(note)})


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU into separate storage, since tied weights appear under two names."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in tensors.items():
        flat = value.detach().cpu().contiguous()
        place = flat.untyped_storage().data_ptr()
        apart[name] = flat.clone() if place in taken else flat
        taken.add(place)
    return apart


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {}).get(NOTE, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, note  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:  # the note may not be valid JSON
        raise UsageError(f"Cannot read the checkpoint {path}: {error}. Expected a file written by kdedge.") from error
