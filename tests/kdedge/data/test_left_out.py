"""Leaving classes out of a dataset."""

from pathlib import Path

import pytest
from training_toys import VAL, write_scenes

from kdedge.data import UNLABELED, index_dataset
from kdedge.data.left_out import check_left_out, leave_out, left_out_samples
from kdedge_runtime.errors import UsageError


def test_remaining_classes_keep_their_samples(scenes: Path) -> None:
    collection = index_dataset(scenes)
    middle = collection.labels[1]
    reduced = leave_out(collection, [middle])
    assert reduced.labels == (collection.labels[0], collection.labels[2])
    for before, after in ((collection.train, reduced.train), (collection.val, reduced.val)):
        expected = [(sample.name, collection.labels[target]) for sample, target in before.pairs() if target != 1]
        assert [(sample.name, reduced.labels[target]) for sample, target in after.pairs()] == expected
    assert reduced.fingerprint != collection.fingerprint


def test_left_out_samples_come_from_the_validation_split(scenes: Path) -> None:
    collection = index_dataset(scenes)
    split = left_out_samples(collection, [collection.labels[2]])
    assert len(split) == VAL and set(split.targets) == {UNLABELED}
    assert {sample.name for sample in split.samples} < {sample.name for sample in collection.val.samples}
    assert not len(left_out_samples(collection, []))


def test_nothing_changes_without_such_a_class(scenes: Path) -> None:
    collection = index_dataset(scenes)
    assert leave_out(collection, []) is collection
    assert leave_out(collection, ["elsewhere"]) is collection


@pytest.mark.parametrize(
    ("classes", "tokens"),
    [(("fsh",), ("fsh", "no such class", "fish")), (("fish", "key"), ("--leave-out", "1 of 3", "2"))],
)
def test_impossible_choices_are_errors(tmp_path: Path, classes: tuple[str, ...], tokens: tuple[str, ...]) -> None:
    collection = index_dataset(write_scenes(tmp_path / "scenes", labels=("fish", "key", "leaf"), train=2, val=1))
    with pytest.raises(UsageError) as error:
        check_left_out(collection, classes)
    assert all(token in str(error.value) for token in tokens)


def test_dataset_without_classes_is_an_error(scenes: Path) -> None:
    collection = index_dataset(scenes / "train" / index_dataset(scenes).labels[0], unlabeled_ok=True)
    with pytest.raises(UsageError, match="classes"):
        check_left_out(collection, ["fish"])
