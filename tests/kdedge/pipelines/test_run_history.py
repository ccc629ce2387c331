"""Run histories: complete, running, or killed while writing a line."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from compare_toys import epoch_line, make_run, taught_line

from kdedge.models.run_folder import METRICS
from kdedge.pipelines.run_history import read_epochs, read_histories, shortest_unique_suffixes
from kdedge_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("paths", "tails"),
    [
        (["/r/teacher"], ["teacher"]),
        (["/r/a/student", "/r/b/student"], ["a/student", "b/student"]),
        (["/r/a/student", "/r/b/student", "/r/b/other"], ["a/student", "b/student", "other"]),
        (["/x/a/s", "/y/a/s", "/y/b/s"], ["x/a/s", "y/a/s", "b/s"]),
        (["/s", "/a/s"], ["/s", "a/s"]),
    ],
)
def test_names_are_the_shortest_unique_suffixes(paths: list[str], tails: list[str]) -> None:
    assert shortest_unique_suffixes([Path(path) for path in paths]) == tails


class TestEpochs:
    def test_truncated_last_line_is_ignored(self, tmp_path: Path) -> None:
        whole = [epoch_line(1, 0.5), epoch_line(2, 0.6)]
        text = "".join(json.dumps(line) + "\n" for line in whole)
        for cut in range(1, len(json.dumps(whole[1])) + 1):  # at any position in the second line, including its newline
            (tmp_path / METRICS).write_text(text[:-cut])
            epochs = read_epochs(tmp_path / METRICS)
            assert list(epochs) in ([whole[0]], whole)
            assert (len(epochs) == 2) == (cut == 1)

    def test_damaged_line_is_reported(self, tmp_path: Path) -> None:
        lines = [json.dumps(epoch_line(1, 0.5)), '{"epoch": 2, "val', json.dumps(epoch_line(3, 0.5))]
        (tmp_path / METRICS).write_text("\n".join(lines) + "\n")
        with pytest.raises(UsageError, match=r"metrics\.jsonl is damaged in line 2: .*Exclude this run"):
            read_epochs(tmp_path / METRICS)

    @pytest.mark.parametrize("strange", ["[1, 2]", "3", '{"step": 4}'])
    def test_invalid_epoch_is_reported(self, tmp_path: Path, strange: str) -> None:
        (tmp_path / METRICS).write_text(f"{strange}\n{json.dumps(epoch_line(1, 0.5))}\n")
        with pytest.raises(UsageError, match="damaged in line 1"):
            read_epochs(tmp_path / METRICS)

    def test_repeated_epoch_is_counted_once(self, tmp_path: Path) -> None:
        lines = [epoch_line(1, 0.5), epoch_line(2, 0.6), epoch_line(2, 0.7), epoch_line(3, 0.8)]
        (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert [(line["epoch"], line["val_top1"]) for line in read_epochs(tmp_path / METRICS)] == [
            (1, 0.5),
            (2, 0.7),
            (3, 0.8),
        ]

    def test_missing_file_has_no_epochs(self, tmp_path: Path) -> None:
        assert read_epochs(tmp_path / METRICS) == ()


class TestHistories:
    def test_complete_run_is_read_from_its_record(self, tmp_path: Path) -> None:
        test = {"best": {"test_top1": 0.7}, "last": {"test_top1": 0.6}}
        (run,) = read_histories([make_run(tmp_path / "run", result={"test": test})])
        assert run.best is not None and run.best["val_top1"] == 0.75
        assert (run.name, run.epochs_done, run.seconds, run.test) == ("run", 2, 3.0, test)

    def test_incomplete_run_is_read_from_its_lines(self, tmp_path: Path) -> None:
        lines = [taught_line(1, 0.8, 0.5, 0.2), taught_line(2, 0.8, 0.5, 0.9), taught_line(3, 0.7, 0.9, 0.9)]
        (run,) = read_histories([make_run(tmp_path / "run", epochs=lines, finished=False)])
        assert (run.best, run.last, run.test) == (lines[1], lines[2], {}), "equal top-1: the maps decide"
        assert (run.epochs_done, run.seconds) == (3, 4.5)

    def test_duplicate_runs_are_merged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("a", "b"):
            make_run(tmp_path / name)
        monkeypatch.chdir(tmp_path)
        runs = read_histories([Path("b"), Path("a"), tmp_path / "b", Path("a/../b")])
        assert [run.name for run in runs] == ["b", "a"]

    def test_teacher_is_named_like_its_run(self, tmp_path: Path) -> None:
        teacher, other = make_run(tmp_path / "one" / "teacher"), make_run(tmp_path / "two" / "teacher")
        origins = [
            {"source": str(path), "weights": None, "weights_sha256": sha256(bytes(path)).hexdigest()}
            for path in (teacher, other)
        ]
        student = make_run(tmp_path / "student", teacher=origins[0])
        both = make_run(tmp_path / "both", teacher={"source": "…", "weights": None, "members": origins})
        runs = read_histories([student, both, teacher])
        assert [run.name for run in runs] == ["student", "both", "one/teacher"]
        names = [tuple(origin.name for origin in run.teachers) for run in runs]
        assert names == [("one/teacher",), ("one/teacher", "two/teacher"), ()]

    def test_folder_without_run_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"is not a run folder \(it has no run\.json\)"):
            read_histories([make_run(tmp_path / "run"), tmp_path])

    def test_runs_without_epochs_are_an_error(self, tmp_path: Path) -> None:
        begun = [make_run(tmp_path / name, epochs=[], finished=False) for name in ("a", "b")]
        with pytest.raises(UsageError, match=r"nothing to compare yet: no epoch is complete in a, b\..*--resume"):
            read_histories(begun)
        runs = read_histories([*begun, make_run(tmp_path / "c")])
        assert [run.epochs_done for run in runs] == [0, 0, 2]
