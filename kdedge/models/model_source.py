"""Models named by the user: a run folder, or a model name with a weights file.

This module does not import torch, which takes seconds, so that errors are reported immediately.
"""

from pathlib import Path

from kdedge.models.custom_path import is_factory
from kdedge.models.model_names import canonical_name
from kdedge.models.zero_shot import is_clip
from kdedge_runtime.errors import UsageError

__all__ = ["check_own_weights", "check_weights", "network_name"]


def network_name(source: str) -> str:
    """Return the canonical name of a model, with a specific error for a path that is not a run.

    Raises:
        UsageError: the model does not exist.
        MissingDependency: A timm name is given without timm.
    """
    folder = Path(source)
    if is_clip(source):
        from kdedge.models.clip import clip_name  # imports torch

        return clip_name(source)
    if folder.suffix.lower() == ".onnx":
        raise UsageError(
            f"{source} is an ONNX file. Add a map with `kdedge export {source}`, or with kdedge_export.add_saliency."
        )
    named = is_factory(source) or source.startswith("timm:")  # its slashes are not those of a path
    if not named and (folder.exists() or len(folder.parts) > 1 or source.endswith("/")):
        found = "is not a run folder" if folder.exists() else "does not exist"
        raise UsageError(f"{source} {found}. Expected a run folder of kdedge train or distill, or a model name.")
    return canonical_name(source)


def check_own_weights(run: str, weights: Path | None, pretrained: bool | None = None) -> None:
    """Raise if weights are chosen for a run.

    Raises:
        UsageError: weights are given, or published or random ones are requested.
    """
    if weights is not None:
        raise UsageError(f"{run} is a run folder with its own weights. Remove the weights {weights}.")
    if pretrained is not None:
        option = "--pretrained" if pretrained else "--no-pretrained"
        raise UsageError(f"{run} is a run folder with its own weights. Remove {option}.")


def check_weights(path: Path) -> None:
    """Raise unless the weights file exists.

    Raises:
        UsageError: the file does not exist.
    """
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, but a weights file is needed. Expected a .safetensors or .pth file; that of a run is "
            "its best.safetensors."
        )
    if not path.is_file():
        raise UsageError(f"The weights file {path} does not exist. Expected a .safetensors or .pth file.")
