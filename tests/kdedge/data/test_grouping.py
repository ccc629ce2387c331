"""Groups of samples stay in one split."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import kdedge
from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.grouping import group_names
from kdedge.models.artifacts import Artifacts
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.calibration_samples import known_samples
from kdedge.training.run_callback import RunCallback
from kdedge_runtime.errors import DataError, UsageError

BY_TRACK = DatasetOptions(group_by=r"track(\d+)")


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


class Warned(RunCallback):
    """Keeps the warnings of a run."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, warning: str) -> None:
        """Keep a warning."""
        self.warnings.append(warning)


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    """Ten tracks a class with three frames each."""
    names = [f"{label}/track{label}{t}_{frame}.png" for label in ("1", "2") for t in range(10) for frame in range(3)]
    return write(tmp_path, *names)


def test_tracks_are_not_divided(tracks: Path) -> None:
    index = index_dataset(tracks, BY_TRACK)
    group_of = group_names(r"track(\d+)")
    train, val = ({group_of(sample.name) for sample in split.samples} for split in (index.train, index.val))
    assert not train & val and len(index.val) == 12 and len(index.train) == 48
    assert {index.val.targets.count(target) for target in (0, 1)} == {6}
    alone = index_dataset(tracks)
    assert {group_of(sample.name) for sample in alone.train.samples} & {
        group_of(sample.name) for sample in alone.val.samples
    }


def test_speakers_of_all_classes_are_not_divided(tmp_path: Path) -> None:
    names = [f"{digit}/{name}_{take}.png" for digit in range(4) for name in "abcde" for take in range(5)]
    index = index_dataset(write(tmp_path, *names), DatasetOptions(group_by=r"/([a-e])_"), val_fraction=0.2)
    speakers = {sample.name.split("/")[1][0] for sample in index.val.samples}
    assert len(speakers) == 1 and len(index.val) == 20


def test_split_depends_on_names_and_seed_only(tracks: Path) -> None:
    first, again, other = (index_dataset(tracks, BY_TRACK, seed=seed).val.samples for seed in (0, 0, 1))
    assert first == again != other


def test_divided_group_of_given_splits_is_an_error(tmp_path: Path) -> None:
    sound = [f"{side}/{label}/track{n}.png" for n, side in enumerate(("train", "val")) for label in "ab"]
    write(tmp_path, *sound)
    assert len(index_dataset(tmp_path, BY_TRACK).val) == 2
    write(tmp_path, "val/a/track0_2.png")
    with pytest.raises(DataError, match="track0"):
        index_dataset(tmp_path, BY_TRACK)


@pytest.mark.parametrize(("pattern", "part"), [("track(", "regular expression"), (r"film(\d+)", "does not match")])
def test_expression_must_match_every_sample(tracks: Path, pattern: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        index_dataset(tracks, DatasetOptions(group_by=pattern))


def test_class_of_one_group_cannot_be_divided(tmp_path: Path) -> None:
    write(tmp_path, "a/track1_1.png", "a/track1_2.png", "b/track2_1.png", "b/track3_1.png")
    with pytest.raises(DataError, match="one group"):
        index_dataset(tmp_path, BY_TRACK)


def test_classes_that_share_two_groups_crosswise_cannot_be_divided(tmp_path: Path) -> None:
    shared = {"a": "12", "b": "23", "c": "31"}
    write(tmp_path, *(f"{label}/track{group}_1.png" for label, groups in shared.items() for group in groups))
    with pytest.raises(DataError, match="manually"):
        index_dataset(tmp_path, BY_TRACK, val_fraction=0.5)


def test_run_keeps_its_groups(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("runs") / "run"
    options: dict[str, Any] = {"group_by": BY_TRACK.group_by, "size": 16, "epochs": 1, "device": "cpu"}
    run = kdedge.train(tracks, "resnet8", output=folder, **options)
    assert Artifacts.open(run).options_for(str(tracks)) == BY_TRACK
    again = kdedge.train(tracks, "resnet8", output=folder, **options, resume=True)
    assert run.record.data["val"] == again.record.data["val"] == 12
    assert len(known_samples(Artifacts.open(run), load_trained(str(run.folder)), None).val) == 12


def test_teacher_with_other_groups_is_warned_about(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It was trained on validation samples of the student."""
    runs = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {"size": 16, "epochs": 1, "device": "cpu"}
    teacher = kdedge.train(tracks, "resnet8", output=runs / "teacher", group_by=BY_TRACK.group_by, **options).folder
    warnings: dict[str | None, list[str]] = {}
    for group_by in (None, BY_TRACK.group_by):
        callback = Warned()
        out = runs / str(len(warnings))
        kdedge.distill(tracks, teacher, "resnet8", output=out, group_by=group_by, callback=callback, **options)
        warnings[group_by] = [warning for warning in callback.warnings if "--group-by" in warning]
    assert len(warnings[None]) == 1 and warnings[BY_TRACK.group_by] == []


def test_options_of_other_modalities_are_refused(tracks: Path) -> None:
    with pytest.raises(UsageError, match="--target"):
        index_dataset(tracks, DatasetOptions(target="price"))
