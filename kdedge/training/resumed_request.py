"""Comparison of a resumed run's options with those that it was started with."""

from pathlib import Path

from kdedge.config.train_config import TrainConfig
from kdedge.models.run_folder import RunRecord
from kdedge_runtime.errors import UsageError

__all__ = ["require_same_request"]


def require_same_request(request: TrainConfig, record: RunRecord, out: Path) -> None:
    """Raise unless a run was started with these options.

    Args:
        request: options of the command that resumes the run.
        record: record of the run.
        out: its folder, for messages.

    Raises:
        UsageError: the command, its recipe or an explicit option differs.
    """
    if record.kind != request.kind:
        raise UsageError(f"{out} was created by kdedge {record.kind}. Continue it with kdedge {record.kind} --resume.")
    if request.recipe is not None and request.given["recipe_sha256"] != record.request.get("recipe_sha256"):
        raise UsageError(
            f"The recipe {request.recipe} differs from the one that {out} was started with. "
            "Remove --recipe to resume with the recorded recipe, or start a new run with another --out."
        )
    for option, value in request.given.items():
        if record.request.get(option) != value:
            shown = option.replace("_", "-")
            raise UsageError(
                f"{out} was started with {shown} {record.request.get(option, 'left to its default')!r}, not {value!r}. "
                "Resume with the same options, or start a new run with another --out."
            )
