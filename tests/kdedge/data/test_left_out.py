"""Leaving classes out of a dataset."""

from pathlib import Path

import pytest
from training_toys import VAL, write_scenes

from kdedge.data import UNLABELED, index_dataset
from kdedge.data.left_out import check_left_out, leave_out, left_out_samples
from kdedge_runtime.errors import UsageError


def test_remaining_classes_keep_their_samples(scenes: Path) -> None:
    dataset = index_dataset(scenes)
    middle = dataset.labels[1]
    reduced = leave_out(dataset, [middle])
    assert reduced.labels == (dataset.labels[0], dataset.labels[2])
    for before, after in ((dataset.train, reduced.train), (dataset.val, reduced.val)):
        expected = [(sample.name, dataset.labels[target]) for sample, target in before.pairs() if target != 1]
        assert [(sample.name, reduced.labels[target]) for sample, target in after.pairs()] == expected
    assert reduced.fingerprint != dataset.fingerprint


def test_left_out_samples_come_from_the_validation_split(scenes: Path) -> None:
    dataset = index_dataset(scenes)
    split = left_out_samples(dataset, [dataset.labels[2]])
    assert len(split) == VAL and set(split.targets) == {UNLABELED}
    assert {sample.name for sample in split.samples} < {sample.name for sample in dataset.val.samples}
    assert not len(left_out_samples(dataset, []))


def test_nothing_changes_without_such_a_class(scenes: Path) -> None:
    dataset = index_dataset(scenes)
    assert leave_out(dataset, []) is dataset
    assert leave_out(dataset, ["elsewhere"]) is dataset


@pytest.mark.parametrize(
    ("classes", "tokens"),
    [(("fsh",), ("fsh", "no such class", "fish")), (("fish", "key"), ("--leave-out", "1 of 3", "2"))],
)
def test_impossible_choices_are_errors(tmp_path: Path, classes: tuple[str, ...], tokens: tuple[str, ...]) -> None:
    dataset = index_dataset(write_scenes(tmp_path / "scenes", labels=("fish", "key", "leaf"), train=2, val=1))
    with pytest.raises(UsageError) as error:
        check_left_out(dataset, classes)
    assert all(token in str(error.value) for token in tokens)


def test_dataset_without_classes_is_an_error(scenes: Path) -> None:
    dataset = index_dataset(scenes / "train" / index_dataset(scenes).labels[0], unlabeled_ok=True)
    with pytest.raises(UsageError, match="classes"):
        check_left_out(dataset, ["fish"])
