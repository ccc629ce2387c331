"""Records of run folders, and errors for damaged ones."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from training_toys import tiny_config

from kdedge.data.dataset_index import source_name
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import RunRecord, check_folder_free, is_run, lock_run, read_run, write_run
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.modalities.image import ImageInput

RECORD = RunRecord(
    kind="distill",
    model=ModelSpec("small:resnet20", 2, 2, False),
    input=ImageInput(48, 48, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1), interpolation="bicubic"),
    labels=("Käse", "Brot [alt]"),
    data={"source": "/photos", "fingerprint": "ab", "split": "hashed", "train": 8, "val": 2, "samples_per_class": None},
    recipe=asdict(tiny_config(epochs=3, loss={"ce": 0.1, "kd": 0.9})) | {"measured": []},
    request={"data": "photos", "model": "resnet20", "epochs": 3},
    device="CPU, 1 threads",
    teacher={"source": "runs/teacher", "weights": None, "weights_sha256": "cd" * 32},
)

EPOCH = {"epoch": 3, "val_top1": 0.5, "val_loss": 1.25}


def test_record_roundtrip(tmp_path: Path) -> None:
    assert not is_run(tmp_path / "run")
    write_run(tmp_path / "run", RECORD)
    assert is_run(tmp_path / "run")
    assert read_run(tmp_path / "run") == RECORD
    finished = RECORD.finished({"best": EPOCH | {"epoch": 2}, "last": EPOCH, "seconds": 1.5})
    write_run(tmp_path / "run", finished)
    assert read_run(tmp_path / "run") == finished
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"], "no temporary file remains"


class TestARunThatIsInTheWay:
    """Errors for existing runs suggest --resume if possible, and otherwise a free folder."""

    def message(self, folder: Path) -> str:
        with pytest.raises(UsageError) as refused:
            check_folder_free(folder)
        return str(refused.value)

    def test_incomplete_run_suggests_resume(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        check_folder_free(run)
        write_run(run, RECORD)
        assert self.message(run) == (
            f"{run} already holds a run. Add --resume to continue it, or choose another folder, such as --out {run}-2."
        )

    def test_complete_run_suggests_another_folder(self, tmp_path: Path) -> None:
        run = tmp_path / "my run"
        write_run(run, RECORD.finished({"best": EPOCH | {"epoch": 2}, "last": EPOCH, "seconds": 1.5}))
        (tmp_path / "my run-2").mkdir()
        assert self.message(run) == (
            f"{run} already holds a run, which is complete. Choose another folder, such as --out '{run}-3'."
        )

    def test_damaged_run_suggests_another_folder(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{")
        assert "which cannot be read. Choose another folder" in self.message(tmp_path)

    def test_working_directory_as_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_run(Path(), RECORD)
        assert self.message(Path()).endswith("such as --out run-2.")


def test_non_utf8_folder_name_roundtrip(tmp_path: Path) -> None:
    source = "/photos/donn\udce9es"  # as Python represents such a byte
    write_run(tmp_path, replace(RECORD, data=RECORD.data | {"source": source}))
    assert read_run(tmp_path).data["source"] == source
    assert source_name(source) == "donn\\xe9es"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
@pytest.mark.parametrize("fault", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
def test_training_continues_without_folder_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    """NFS requires a lock's file to be open for writing, which is impossible for folders."""

    def no_locks(handle: int, operation: int) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with lock_run(tmp_path / "run"):
        write_run(tmp_path / "run", RECORD)
    assert read_run(tmp_path / "run") == RECORD


def test_full_disk_keeps_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, RECORD)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KdedgeError, match=r"Cannot write .*run\.json: .*No space left on device.*--resume"):
        write_run(tmp_path, RECORD.finished({"seconds": 1.5}))
    assert read_run(tmp_path) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_folder_without_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a run folder.*kdedge train or distill"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"run"', '{"schema": 1}', '{"schema": 1, "input": 3}'])
def test_damaged_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"run\.json is damaged: .*Train the model again"):
        read_run(tmp_path)


def test_record_of_another_version(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    values = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(values | {"schema": 2}))
    with pytest.raises(UsageError, match="another version of kdedge"):
        read_run(tmp_path)


WILD = [None, True, -1, 0.5, 1e308, float("nan"), float("inf"), 10**400, "", "\ud800", [], {}, [[]], {"a": {}}]


def _paths(values: Any, here: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*here, key)
        if isinstance(value, dict):
            yield from _paths(value, (*here, key))


@pytest.mark.parametrize("wild", WILD, ids=lambda value: ascii(value)[:12])
def test_arbitrary_values_are_rejected_or_keep_their_type(tmp_path: Path, wild: Any) -> None:
    finished = RECORD.finished({"best": EPOCH, "last": EPOCH, "seconds": 1.5})
    write_run(tmp_path, finished)
    document = json.loads((tmp_path / "run.json").read_text())
    refused = 0
    for *parents, last in _paths(document):
        changed = json.loads(json.dumps(document))
        place = changed
        for key in parents:
            place = place[key]
        before, place[last] = place[last], wild
        (tmp_path / "run.json").write_text(json.dumps(changed))
        try:
            read = json.loads(json.dumps(asdict(read_run(tmp_path))))
        except UsageError as error:
            assert "run.json" in str(error) and len(str(error)) < 500
            refused += 1
            continue
        for key in (*parents, last):
            read = read.get(key, wild) if isinstance(read, dict) else read
        numbers = isinstance(wild, int | float) and isinstance(before, int | float)
        assert wild != "\ud800"
        loose = wild is None or before is None or "request" in parents
        assert loose or numbers or isinstance(wild, type(before)), (*parents, last)
    assert refused > len(WILD)
