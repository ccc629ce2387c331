"""Model names with their libraries. Names are searched in the library itself, which imports torch."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdedge.models.custom_path import is_factory
from kdedge.models.pretrained import torchvision_tags
from kdedge.models.resnet_layouts import RESNETS
from kdedge.models.run_folder import BEST, is_run
from kdedge.models.trees import refuse_table_model
from kdedge.models.zero_shot import is_clip
from kdedge_runtime.errors import MissingDependency, UsageError
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["canonical_name", "import_timm", "networks_of"]


def canonical_name(name: str) -> str:
    """Return a model's name with its library; bare names are searched among the small networks, then in torchvision.

    The file of a factory is made absolute and loaded.

    Raises:
        UsageError: the model does not exist; the message suggests similar names.
        MissingDependency: A timm name is given without timm.
    """
    if is_factory(name):
        from kdedge.models.custom import factory_name  # executes the file, which needs torch

        return factory_name(name)
    if is_clip(name):
        raise UsageError(
            f"{name} is a zero-shot classifier, which is not trained. Use it as a teacher with --teacher {name}, or "
            f'export it: kdedge export {name} --classes "cat,dog,empty bowl".'
        )
    if "hf-hub:" in name or "hf_hub:" in name:
        raise UsageError(
            f"{name} is a repository of the Hugging Face Hub, but kdedge only downloads weights that timm lists, as in "
            "timm:NAME.TAG. Download others, and use timm:NAME --weights FILE (--teacher-weights FILE for a teacher)."
        )
    library, _, bare = name.rpartition(":")
    libraries: dict[str, Callable[[str], list[str]]] = {
        "torchvision": _torchvision_names,
        "small": lambda _: list(RESNETS),
        "timm": _timm_names,
    }
    searched = [library] if library else ["small", "torchvision"]  # small names need no torch
    if searched[0] not in libraries:
        raise UsageError(
            f"Unknown model library {library!r} in {name!r}. Expected torchvision:, timm: or small: and a name, "
            "or FILE.py:FUNCTION."
        )
    for candidate in searched:
        if bare in libraries[candidate](bare):
            return f"{candidate}:{bare}"
    if is_run(Path(name)):
        raise UsageError(
            f"{name} is a run folder, but a model name is expected, such as that run's. "
            f"To start from its weights: --weights {Path(name) / BEST}."
        )
    refuse_table_model(name, "images or sounds", "resnet18 or small:resnet8")
    elsewhere = [f"timm:{bare}"] if not library and bare in networks_of("timm") else []
    near = elsewhere or [
        f"{candidate}:{match}"
        for candidate in searched
        for match in difflib.get_close_matches(bare, libraries[candidate](bare), n=3)
    ]
    hint = f"Did you mean {', '.join(near)}?" if near else "Try resnet18, mobilenet_v3_small or resnet10w16."
    raise UsageError(f"There is no model {name!r}. {hint}")


def networks_of(library: str) -> tuple[str, ...]:
    """Return the classifiers of `torchvision` or `timm`; none of timm if it is not installed."""
    if library == "torchvision":
        from torchvision import models

        return tuple(models.list_models(module=models))
    try:
        return tuple(import_timm().list_models())
    except MissingDependency:
        return ()


def import_timm() -> Any:
    """Import timm.

    Raises:
        MissingDependency: timm is not installed.
    """
    with needs_package("A model named timm:…", "timm", "pip install timm"):
        import timm
    return timm


def _torchvision_names(requested: str) -> list[str]:
    """Return model names, with the tags of published weights if a tag is given: `resnet50.IMAGENET1K_V1`."""
    networks = networks_of("torchvision")
    network, dot, _ = requested.partition(".")
    tagged = [f"{network}.{tag}" for tag in torchvision_tags(network)] if dot and network in networks else []
    return [*networks, *tagged]


def _timm_names(requested: str) -> list[str]:
    """Return model names, with the tags of published weights if a tag is given: `resnet18.a1_in1k`."""
    timm = import_timm()
    return [*timm.list_models(), *(timm.list_models(include_tags=True) if "." in requested else ())]
