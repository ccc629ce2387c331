"""What `kdedge train` and `kdedge distill` look up before they import torch, which takes seconds, and what follows."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from kdedge.data.readers.reader_choice import require_data, scan
from kdedge.models.custom_path import factory_parts, is_factory
from kdedge.models.model_names import canonical_name
from kdedge.models.model_source import require_model, require_weights
from kdedge.models.run_folder import is_run, read_run, require_free

__all__ = ["next_export", "require_training"]


def require_training(
    data: str,
    model: str,
    out: Path,
    *,
    weights: str | None,
    resume: bool,
    teachers: Sequence[str] = (),
    teacher_weights: Sequence[str] = (),
) -> None:
    """Raise where what was typed leads nowhere.

    Args:
        data: the pictures.
        model: the network to train.
        out: the run folder.
        weights: the file of its first weights.
        resume: whether to go on with a run, which has noted all else.
        teachers: run folders, `.onnx` files or networks.
        teacher_weights: files of the networks' weights.

    Raises:
        UsageError: there is no such network, run or file, or `out` is in the way.
        DataError: there is no such folder of pictures; where `out` is in the way, also that it cannot train.
    """
    if resume and is_run(out):
        read_run(out)
        return
    require_data(data)
    if is_factory(model):
        factory_parts(model)
    else:
        canonical_name(model)
    for teacher in teachers:
        if is_run(Path(teacher)) or not teacher.endswith(".onnx"):
            require_model(teacher)
    for file in filter(None, (weights, *teacher_weights)):
        require_weights(Path(file))
    if is_run(out):
        scan(data)  # what is wrong with the pictures comes first: whoever mistyped them is not helped by another --out
    require_free(out)


def next_export(run: Path) -> str:
    """What to type after a network that is to be shipped."""
    return f"Next: {shlex.join(['kdedge', 'export', str(run), '--quantize'])}"
