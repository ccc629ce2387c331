"""Groups of samples that a teacher and its student keep together."""

import shlex
from pathlib import Path

from kdedge.models.run_folder import is_run, read_run
from kdedge.models.teacher_source import LoadedTeacher

__all__ = ["other_groups"]


def other_groups(teacher: LoadedTeacher, data: str, group_by: str | None) -> str | None:
    """Return a warning about a teacher that divided the same dataset by other groups; None for any other teacher.

    Samples of its training are then among the validation samples, and both models seem better than they are.

    Args:
        teacher: the teacher; only a run folder states its groups.
        data: location of the dataset, absolute.
        group_by: groups of the run that is started.
    """
    run = Path(str(teacher.record["source"]))
    if not is_run(run):
        return None
    record = read_run(run)
    theirs = record.dataset_options.group_by
    if record.data["source"] != data or record.data["split"] == "folders" or theirs == group_by:
        return None
    divided, mend = (
        ("without groups", "Train it with the same --group-by")
        if theirs is None
        else (f"with --group-by {shlex.quote(theirs)}", f"Add --group-by {shlex.quote(theirs)}")
    )
    return (
        f"The teacher {teacher.name} divided these samples {divided}, so it was trained on some of the validation "
        f"samples. {mend}."
    )
