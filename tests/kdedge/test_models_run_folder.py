"""What a run folder says about its model, and what is said about a damaged one."""

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdedge.data.collection import source_name
from kdedge.models.run_folder import RunRecord, is_run, lock_run, read_run, write_run
from kdedge.models.spec import ModelSpec
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.metadata import ImageInput

RECORD = RunRecord(
    kind="distill",
    model=ModelSpec("small:resnet20", 2, 2, False),
    input=ImageInput(48, 48, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1), interpolation="bicubic"),
    labels=("Käse", "Brot [alt]"),
    data={"source": "/photos", "fingerprint": "ab", "split": "hashed", "train": 8, "val": 2, "images_per_class": None},
    recipe={"epochs": 3, "loss": {"ce": 0.1, "kd": 0.9}},
    request={"data": "photos", "epochs": 3},
    device="CPU, 1 threads",
    teacher={"source": "runs/teacher", "weights": None, "weights_sha256": "cd"},
)


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    assert not is_run(tmp_path / "run")
    write_run(tmp_path / "run", RECORD)
    assert is_run(tmp_path / "run")
    assert read_run(tmp_path / "run") == RECORD
    finished = RECORD.finished({"best": {"epoch": 2}, "last": {"epoch": 3}, "seconds": 1.5})
    write_run(tmp_path / "run", finished)
    assert read_run(tmp_path / "run") == finished
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"], "no temporary file stays"


def test_a_folder_whose_name_is_no_utf8_is_found_again(tmp_path: Path) -> None:
    source = "/photos/donn\udce9es"  # as Python holds such a byte
    write_run(tmp_path, replace(RECORD, data=RECORD.data | {"source": source}))
    assert read_run(tmp_path).data["source"] == source
    assert source_name(source) == "donn\\xe9es"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
@pytest.mark.parametrize("fault", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_folders_cannot_be_locked_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    """NFS wants a lock's file open for writing, which no folder is."""

    def no_locks(handle: int, operation: int) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with lock_run(tmp_path / "run"):
        write_run(tmp_path / "run", RECORD)
    assert read_run(tmp_path / "run") == RECORD


def test_a_full_disk_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, RECORD)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KdedgeError, match=r"Cannot write .*run\.json: .*No space left on device.*--resume"):
        write_run(tmp_path, RECORD.finished({"seconds": 1.5}))
    assert read_run(tmp_path) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a run folder.*kdedge train or distill"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"run"', '{"schema": 1}', '{"schema": 1, "input": 3}'])
def test_a_damaged_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"run\.json is damaged: .*Train the model again"):
        read_run(tmp_path)


def test_a_record_of_another_version(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    values = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(values | {"schema": 2}))
    with pytest.raises(UsageError, match="another version of kdedge"):
        read_run(tmp_path)
