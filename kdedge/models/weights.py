"""Read and load trained weights without running code from the file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdedge_runtime.errors import UsageError

__all__ = ["load_state", "read_state"]


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `.pt`/`.pth` file that holds nothing but tensors.

    Raises:
        UsageError: the file is missing, damaged, or is a pickle that would have to run code.
    """
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}. Expected a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, Exception) as error:
        raise UsageError(
            f"Cannot read weights from {path}: {str(error).splitlines()[0]} "
            "Expected .safetensors, or a .pth that holds a plain state_dict."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} holds no plain state_dict. Save it with torch.save(model.state_dict(), FILE).")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str, *, new_head: bool = False) -> list[str]:
    """Load weights into a model, in place.

    Args:
        model: the model.
        state: its tensors by name.
        source: what to call them in an error.
        new_head: let tensors of another shape than the model's (the classifier of other classes) stay as they are.

    Returns:
        Names of the tensors that were left out because of their shape.

    Raises:
        UsageError: names or shapes do not fit.
    """
    own = model.state_dict()
    odd = [name for name in own if name in state and own[name].shape != state[name].shape]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    if missing or unknown or (odd and not new_head):
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for names, what in ((missing, "missing"), (unknown, "unknown"), (odd, "of another shape"))
            if names
        ]
        raise UsageError(
            f"The weights in {source} do not fit {type(model).__name__}: tensors {'; '.join(parts)}. "
            "Expected the weights of this very model; check --model and --weights."
        )
    model.load_state_dict({name: value for name, value in state.items() if name not in odd}, strict=False)
    return odd
