"""A model as the user names it: a run folder, or a network and a file with its weights.

Nothing here imports torch, which takes seconds: what leads nowhere is told at once.
"""

from pathlib import Path

from kdedge.models.custom_path import factory_parts, is_factory
from kdedge.models.model_names import canonical_name
from kdedge.models.run_folder import is_run, read_run, weights_file
from kdedge_runtime.errors import UsageError

__all__ = ["network_name", "require_model", "require_own_weights", "require_weights"]


def require_model(source: str, weights: Path | None = None) -> None:
    """Raise unless there is such a model.

    Args:
        source: a run folder, a name such as `torchvision:resnet18`, or a factory such as `nets.py:make_model`.
        weights: the file of a network's weights.

    Raises:
        UsageError: there is no such run, network or file.
        MissingDependency: a timm name without timm.
    """
    if is_run(Path(source)):
        require_own_weights(source, weights)
        read_run(Path(source))
        weights_file(Path(source))
        return
    if is_factory(source):
        factory_parts(source)  # what is in the file shows when it is loaded
    else:
        network_name(source)
    if weights is not None:
        require_weights(weights)


def network_name(source: str) -> str:
    """The canonical name of a network: of a path it is said that no run is there.

    Raises:
        UsageError: there is no such network.
        MissingDependency: a timm name without timm.
    """
    folder = Path(source)
    named = is_factory(source) or source.startswith("timm:")  # whose slashes are not those of a run folder
    if not named and (folder.exists() or len(folder.parts) > 1 or source.endswith("/")):
        found = "is no run folder" if folder.exists() else "does not exist"
        raise UsageError(f"{source} {found}. Expected a run of kdedge train or distill, or the name of a model.")
    return canonical_name(source)


def require_own_weights(run: str, weights: Path | None) -> None:
    """Raise where weights are named for a run.

    Raises:
        UsageError: they are.
    """
    if weights is not None:
        raise UsageError(f"{run} is a run folder and has its own weights; leave those in {weights} out.")


def require_weights(path: Path) -> None:
    """Raise unless a file of weights is there.

    Raises:
        UsageError: it is not.
    """
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}. Expected a .safetensors or .pth file.")
