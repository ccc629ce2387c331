"""Groups of samples that stay in one split, such as the frames of a track or the recordings of a speaker."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from kdedge.data.splits import Split, by_target, rank
from kdedge_runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from kdedge.data.dataset_index import DatasetIndex

__all__ = ["GroupOf", "check_groups", "group_names", "group_split"]

GroupOf: TypeAlias = Callable[[str], str]
"""Function of a sample's name to the name of its group."""


def group_names(pattern: str, file_of: GroupOf | None = None) -> GroupOf:
    """Return the function that names groups by the first match of a regular expression.

    A group is named by the capturing groups of the expression, or by the whole match if it has none.

    Args:
        pattern: regular expression.
        file_of: function of a sample's name to the name that is matched, such as that of the recording of a window.
            None matches the name itself.

    Raises:
        UsageError: the expression is invalid; by the function also for a name without a match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group-by {pattern} is not a regular expression ({error}). Expected one like '(track_\\d+)'."
        ) from error

    def group_of(name: str) -> str:
        file = name if file_of is None else file_of(name)
        found = expression.search(file)
        if found is None:
            raise UsageError(
                f"--group-by {pattern} does not match {file}. Expected an expression that matches every sample."
            )
        return "\0".join(part or "" for part in found.groups()) if expression.groups else found.group()

    return group_of


def group_split(split: Split, group_of: GroupOf, *, val_fraction: float, seed: int) -> tuple[Split, Split]:
    """Split samples into training and validation without dividing a group, both in the original order.

    Groups are taken for validation by a hash of their names, until each class has at least `val_fraction` of its
    samples there. One group of each class remains for training.

    Raises:
        DataError: A class has a single group.
    """
    groups = [group_of(sample.name) for sample in split.samples]
    chosen: set[str] = set()
    for members in by_target(split):
        sizes: defaultdict[str, int] = defaultdict(int)
        for index in members:
            sizes[groups[index]] += 1
        if len(sizes) < 2:
            raise DataError(
                f"All samples of a target are in one group of --group-by, such as {split.samples[members[0]].name}, so "
                "none are left for validation. Expected two or more groups of each class."
            )
        _choose(sizes, chosen, val_fraction * len(members), seed)
    val = [index for index, group in enumerate(groups) if group in chosen]
    train = [index for index, group in enumerate(groups) if group not in chosen]
    _require_training(split, train)
    return split.take(train), split.take(val)


def _choose(sizes: dict[str, int], chosen: set[str], least: float, seed: int) -> None:
    """Add groups of one class to the chosen ones until they have enough samples; one group is never added."""
    ordered = sorted(sizes, key=lambda group: rank(f"{seed}/{group}"))
    count = sum(sizes[group] for group in ordered if group in chosen)
    for group in [group for group in ordered if group not in chosen][:-1]:
        if count >= least:
            return
        chosen.add(group)
        count += sizes[group]


def _require_training(split: Split, train: Sequence[int]) -> None:
    left = {split.targets[index] for index in train}
    for members in by_target(split):
        if split.targets[members[0]] not in left:
            raise DataError(
                f"--group-by puts all samples of a class into validation, such as {split.samples[members[0]].name}. "
                "Divide the dataset into train/ and val/ manually."
            )


def check_groups(dataset: "DatasetIndex", group_of: GroupOf) -> None:
    """Raise if a group is in more than one split of a dataset with its own splits.

    Raises:
        DataError: A group is divided.
    """
    splits = {"training": dataset.train, "validation": dataset.val, "test": dataset.test or Split()}
    first: dict[str, tuple[str, str]] = {}
    for side, split in splits.items():
        for sample in split.samples:
            other, name = first.setdefault(group_of(sample.name), (side, sample.name))
            if other != side:
                raise DataError(
                    f"{name} and {sample.name} are in one group of --group-by, but in different splits ({other} and "
                    f"{side}). Move them into one split, or remove --group-by."
                )
