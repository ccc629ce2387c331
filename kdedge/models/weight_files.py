"""Loading of trained weights without executing code from the file."""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from kdedge.models.model_source import check_weights
from kdedge_runtime.errors import UsageError

__all__ = ["MODEL_PREFIX", "NOTE", "TRAINING_PREFIX", "load_state", "read_state"]

MODEL_PREFIX, TRAINING_PREFIX = "model.", "training."
"""Tensor name prefixes in a kdedge checkpoint: model tensors, and tensors needed only for training."""
NOTE = "kdedge"
"""Metadata key of a checkpoint's JSON note."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file, or of a `.pt`/`.pth` file with only tensors.

    For a checkpoint in a run folder these are the model's tensors, without prefix.

    Raises:
        UsageError: the file is missing, damaged, or a pickle that would execute code.
    """
    check_weights(path)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        _require_stored(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message advises executing the code, which is unsafe
        raise UsageError(
            f"{path} does not contain plain weights: it is damaged, of another type, or a whole pickled model, which "
            "would execute code when read. Expected .safetensors, or a .pth from torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:  # damaged or foreign bytes can raise any exception in their parser
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"Cannot read weights from {path}: {why} Expected .safetensors, or a .pth with a plain state_dict."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UsageError(
            f"{path} does not contain a plain state_dict. Save it with torch.save(model.state_dict(), FILE)."
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def _require_stored(path: Path) -> None:
    """Raise if an archive's members are compressed: torch.save never compresses, and a zip bomb expands to gigabytes.

    Raises:
        ValueError: A member is compressed.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its members are compressed, which torch.save never does.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors; for a kdedge checkpoint, recognized by its note, the model's tensors without prefix."""
    with safe_open(path, "pt") as file:
        names: list[str] = file.keys()
        if NOTE in (file.metadata() or {}):
            names = [name for name in names if name.startswith(MODEL_PREFIX)]
            return {name.removeprefix(MODEL_PREFIX): file.get_tensor(name) for name in names}
        return {name: file.get_tensor(name) for name in names}


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str, *, replaced: Collection[str] = ()) -> None:
    """Load weights into a model, in place.

    Args:
        model: model.
        state: tensors by name.
        source: location for error messages.
        replaced: names of classifier tensors that keep their values if they are missing or their shape differs.

    Raises:
        UsageError: names or shapes do not fit.
    """
    own = model.state_dict()
    differing = [name for name in own if name in state and own[name].shape != state[name].shape]
    odd = [name for name in differing if name not in replaced]
    optional = {*replaced, *(name for name in own if name.endswith("num_batches_tracked"))}
    missing = [name for name in own if name not in state and name not in optional]
    unknown = [name for name in state if name not in own]
    if missing or unknown or odd:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for names, what in ((missing, "missing"), (unknown, "unknown"), (odd, "with another shape"))
            if names
        ]
        raise UsageError(
            f"The weights in {source} do not fit {type(model).__name__}: tensors {'; '.join(parts)}. "
            "Expected the weights of exactly this model; check --model and --weights."
        )
    values = OrderedDict((name, value) for name, value in state.items() if name not in differing)
    values._metadata = own._metadata  # type: ignore[attr-defined]  # some modules require their version
    model.load_state_dict(values, strict=False)
