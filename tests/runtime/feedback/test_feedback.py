"""Feedback store: crash safety, size limit and error messages."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.feedback import FeedbackError, FeedbackStore, Verdict
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import decode_prediction
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.images import decode_image, open_image

SHA = "ab" * 32


def verdict(number: int = 0, *, size_bytes: int = 1000, **changes: object) -> Verdict:
    values: dict[str, object] = {
        "judgment": "correct",
        "content": number.to_bytes(8, "big") + bytes(size_bytes - 8),
        "suffix": ".jpg",
        "kind": "image",
        "saliency_map": np.arange(49, dtype=np.float32).reshape(7, 7) - 20,
        "label": "red",
        "score": 0.75,
        "explained": "red",
        "frame_name": f"frame {number}",
        "model_sha256": SHA,
        "at": datetime(2026, 11, 24, 12, 0, 0, 250_000, UTC),
    }
    return Verdict(**values | changes)  # type: ignore[arg-type]


def numbers(store: FeedbackStore) -> list[int]:
    return [int.from_bytes(item.content[:8], "big") for item in store]


def on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*") if not file.name.endswith("-shm"))


class TestVerdict:
    def test_entry_contains_plain_frame_and_raw_map(self, model: Model, red_spot: np.ndarray) -> None:
        explanation = model.predict(red_spot[None])
        prediction = decode_prediction(model, Frame(3, red_spot, 0.0, "camera 3"), explanation)
        stored = Verdict.of(
            prediction, "relabeled", model_sha256=SHA, correct_label=" blue ", box=(0.5, 0.25, 0.75, 1.0)
        )
        frame = decode_image(open_image("frame", stored.content), "frame").pixels
        assert np.abs(frame.astype(int) - red_spot).mean() < 3
        assert stored.saliency_map is not None and explanation.saliency_map is not None
        np.testing.assert_array_equal(stored.saliency_map, explanation.saliency_map[0])
        assert (stored.label, stored.correct_label, stored.true_label) == ("red", "blue", "blue")
        assert stored.score == prediction.score
        assert (datetime.now(UTC) - stored.at).total_seconds() < 60

    @pytest.mark.parametrize(("task", "score", "stored"), [("embedding", -0.25, -0.25), ("regression", 12.5, None)])
    def test_score_is_a_similarity_or_missing(
        self, model: Model, red_spot: np.ndarray, task: str, score: float, stored: float | None
    ) -> None:
        prediction = decode_prediction(model, Frame(3, red_spot, 0.0, "camera 3"), model.predict(red_spot[None]))
        prediction = replace(prediction, task=task, ranking=(("red", score),))
        assert Verdict.of(prediction, "incorrect", model_sha256=SHA).score == stored

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"judgment": "maybe"}, "'maybe' is not a valid judgment.*correct, incorrect, relabeled, wrong_region"),
            ({"judgment": "relabeled"}, "correct label is required"),
            ({"correct_label": "blue"}, "not allowed for any other"),
            ({"judgment": "relabeled", "correct_label": "  "}, "1 to 200 characters"),
            ({"judgment": "relabeled", "correct_label": "x" * 201}, "1 to 200 characters"),
            ({"box": (0.5, 0.0, 0.5, 1.0)}, "is not a valid box"),
            ({"box": (0.0, 0.0, 0.5, 1.1)}, "is not a valid box"),
            ({"box": (float("nan"), 0.0, 0.5, 1.0)}, "is not a valid box"),
        ],
    )
    def test_invalid_entries_are_rejected(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            verdict(**changes)

    @pytest.mark.parametrize(("judgment", "label"), [("correct", "red"), ("wrong_region", "red"), ("incorrect", None)])
    def test_true_label_depends_on_judgment(self, judgment: str, label: str | None) -> None:
        assert verdict(judgment=judgment).true_label == label


class TestStore:
    def test_entries_round_trip(self, tmp_path: Path) -> None:
        given = [
            verdict(1),
            verdict(2, judgment="relabeled", correct_label="Grün, 'ja'", box=(0.0, 0.125, 0.5, 1.0)),
            verdict(3, saliency_map=None),
            verdict(4, score=None),
        ]
        with FeedbackStore.open(tmp_path / "deep" / "feedback.db", 5) as store:
            for item in given:
                store.add(item)
            assert len(store) == 4
        with FeedbackStore.open_to_read(tmp_path / "deep" / "feedback.db") as store:
            for item, back in zip(given, store, strict=True):
                expected, found = dict(item.__dict__), dict(back.__dict__)
                np.testing.assert_array_equal(expected.pop("saliency_map"), found.pop("saliency_map"))
                assert expected == found
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["feedback.db"], "the log is removed"

    def test_maps_are_stored_in_half_precision_and_stay_finite(self, tmp_path: Path) -> None:
        strong = np.array([[1e6, -1e6], [1 / 3, 0.0]], np.float32)
        with FeedbackStore.open(tmp_path / "feedback.db", 1) as store:
            store.add(verdict(saliency_map=strong))
            (back,) = store
        np.testing.assert_allclose(back.saliency_map, [[65504, -65504], [1 / 3, 0]], rtol=1e-3)

    def test_oldest_entries_are_deleted_and_limit_always_holds(self, tmp_path: Path) -> None:
        path = tmp_path / "feedback.db"
        rng = np.random.default_rng(0)
        sizes = rng.integers(1_000, 200_000, 50)
        largest, done = 0, threading.Event()

        def watch() -> None:
            nonlocal largest
            while not done.is_set():
                largest = max(largest, on_disk(path))
                time.sleep(0.0005)

        watcher = threading.Thread(target=watch)
        with FeedbackStore.open(path, 1) as store:
            watcher.start()
            for number, size_bytes in enumerate(sizes):
                store.add(verdict(number, size_bytes=int(size_bytes)))
                largest = max(largest, on_disk(path))
                kept = numbers(store)
                assert kept == list(range(number - len(kept) + 1, number + 1)), "latest entries without gaps"
            done.set()
            watcher.join()
            assert sizes[kept[0] :].sum() > 400_000, "available space is used"
        assert 500_000 < largest <= 1_000_000

    def test_lower_limit_deletes_oldest_entries(self, tmp_path: Path) -> None:
        path = tmp_path / "feedback.db"
        with FeedbackStore.open(path, 4) as store:
            for number in range(25):
                store.add(verdict(number, size_bytes=100_000))
            assert len(store) == 25
        with FeedbackStore.open(path, 1) as store:
            kept = numbers(store)
            assert 4 <= len(kept) <= 7
            assert kept[-1] == 24
        assert on_disk(path) <= 1_000_000

    def test_unknown_frames_never_delete_other_feedback(self, tmp_path: Path) -> None:
        with FeedbackStore.open(tmp_path / "feedback.db", 1) as store:
            store.add(verdict(0, size_bytes=100_000))
            for number in range(1, 21):
                store.add(verdict(number, size_bytes=100_000, judgment="unknown"))
            kept = numbers(store)
            assert kept[0] == 0 and kept[1:] == list(range(20 - len(kept) + 2, 21)) and len(kept) >= 4
            for number in range(21, 21 + len(kept) - 1):  # corrections replace unknown frames, then the oldest
                store.add(verdict(number, size_bytes=100_000))
            full = numbers(store)
            assert full == [0, *range(21, 21 + len(kept) - 1)]
            with pytest.raises(FeedbackError, match="full of other feedback"):
                store.add(verdict(50, size_bytes=100_000, judgment="unknown"))
            assert numbers(store) == full
            store.add(verdict(51, size_bytes=100_000))
            assert numbers(store) == [*full[1:], 51]

    def test_oversized_entry_is_rejected_without_deleting_others(self, tmp_path: Path) -> None:
        with FeedbackStore.open(tmp_path / "feedback.db", 1) as store:
            store.add(verdict(1))
            with pytest.raises(FeedbackError, match=r"of 0\.3 MB does not fit .* Raise the limit"):
                store.add(verdict(2, size_bytes=300_000))
            assert numbers(store) == [1]

    def test_limit_below_one_megabyte_or_without_end_is_rejected(self, tmp_path: Path) -> None:
        for cap_mb in (0.5, 0, -1, float("nan"), float("inf"), 1e305):
            with pytest.raises(UsageError, match="1 or more"):
                FeedbackStore.open(tmp_path / "feedback.db", cap_mb)

    def test_concurrent_adds_are_safe(self, tmp_path: Path) -> None:
        with FeedbackStore.open(tmp_path / "feedback.db", 5) as store:
            threads = [
                threading.Thread(target=lambda first=first: [store.add(verdict(first + n)) for n in range(10)])
                for first in (0, 10, 20, 30)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(numbers(store)) == list(range(40))

    def test_store_can_be_read_during_writes(self, tmp_path: Path) -> None:
        with FeedbackStore.open(tmp_path / "feedback.db", 5) as store:
            store.add(verdict(1))
            with FeedbackStore.open_to_read(tmp_path / "feedback.db") as reader:
                assert numbers(reader) == [1]
                store.add(verdict(2))
                assert numbers(reader) == [1, 2]

    def test_copied_file_is_complete_during_a_run(self, tmp_path: Path) -> None:
        with FeedbackStore.open(tmp_path / "feedback.db", 5) as store:
            store.add(verdict(1))
            store.add(verdict(2))
            (tmp_path / "copy.db").write_bytes((tmp_path / "feedback.db").read_bytes())
        with FeedbackStore.open_to_read(tmp_path / "copy.db") as copy:
            assert numbers(copy) == [1, 2]


class TestFailures:
    def test_path_that_cannot_be_created_is_a_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "link.db").symlink_to(tmp_path / "gone" / "feedback.db")
        too_long, dangling = tmp_path / ("x" * 300), tmp_path / "link.db"
        for path in (too_long, dangling):
            caplog.clear()
            with FeedbackStore.open(path, 1) as store:
                assert str(path) in caplog.text
                with pytest.raises(FeedbackError, match="Use another path"):
                    store.add(verdict())

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc needs Linux")
    def test_folder_of_the_kernel_is_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        with FeedbackStore.open("/proc/x.db", 1):
            assert "/proc/x.db" in caplog.text

    def test_sigkill_loses_no_completed_entry(self, tmp_path: Path) -> None:
        program = (
            "import sys; sys.path[:0] = sys.argv[2:]\n"
            "from test_feedback import verdict\n"
            "from kdedge_runtime.feedback import FeedbackStore\n"
            "store = FeedbackStore.open(sys.argv[1], 1)\n"
            "for number in range(10**6):\n"
            "    store.add(verdict(number, size_bytes=60_000)); print(number, flush=True)\n"
        )
        path, last = tmp_path / "feedback.db", -1
        for wait_s in (0.11, 0.17, 0.23):
            command = [sys.executable, "-c", program, str(path), *map(str, Path(__file__).parents[:2])]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                first = process.stdout.readline()
                time.sleep(wait_s)
                os.kill(process.pid, signal.SIGKILL)
                counts = [int(line) for line in [first, *process.stdout]]
            last = counts[-1]
            with FeedbackStore.open(path, 1) as store:
                kept = numbers(store)
                # The entry being added may be complete but not yet reported.
                assert kept[-1] in (last, last + 1)
                assert kept[-2] == kept[-1] - 1
                assert store._rows("PRAGMA integrity_check") == [("ok",)]
        assert last > 0

    def test_full_disk_is_reported_and_entries_are_kept(self, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource", reason="file size limits need POSIX")
        path = tmp_path / "feedback.db"
        with FeedbackStore.open(path, 20) as store:
            for number in range(5):
                store.add(verdict(number, size_bytes=50_000))
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            # The kernel rejects writes beyond this size, like a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20_000, before[1]))
            try:
                with pytest.raises(FeedbackError, match="cannot be read or written"):
                    store.add(verdict(5, size_bytes=1_000_000))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                signal.signal(signal.SIGXFSZ, ignored)
            assert numbers(store) == [0, 1, 2, 3, 4]
            store.add(verdict(6))  # space is available again
            assert numbers(store) == [0, 1, 2, 3, 4, 6]

    def test_sqlite_full_error_contains_remedy(self, tmp_path: Path) -> None:
        with FeedbackStore.open(tmp_path / "feedback.db", 20) as store:
            store.add(verdict(1))
            store._rows("PRAGMA max_page_count = 10")
            with pytest.raises(FeedbackError, match="The disk is full: free some space"):
                store.add(verdict(2, size_bytes=100_000))
            assert numbers(store) == [1]

    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        path = tmp_path / "feedback.db"
        with FeedbackStore.open(path, 5) as store:
            for number in range(20):
                store.add(verdict(number, size_bytes=20_000))
        content = bytearray(path.read_bytes())
        content[4096:] = np.random.default_rng(1).bytes(len(content) - 4096)
        path.write_bytes(content)
        return path

    def test_damaged_file_error_contains_remedy(self, damaged: Path) -> None:
        way_out = rf"is damaged.*`mv {damaged} {damaged}\.damaged`"
        with FeedbackStore.open(damaged, 5) as store:
            for _ in range(2):
                with pytest.raises(FeedbackError, match=way_out):
                    store.add(verdict(99))
        with pytest.raises(FeedbackError, match="is damaged"), FeedbackStore.open_to_read(damaged) as store:
            list(store)

    @pytest.mark.parametrize("damage", ["at = '2026-11-p7'", "map = x'00'", "map_width = 'three'"])
    def test_damaged_entry_is_reported(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "feedback.db"
        with FeedbackStore.open(path, 5) as store:
            store.add(verdict(1))
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE feedback SET {damage}")
        with FeedbackStore.open_to_read(path) as store, pytest.raises(FeedbackError, match="is damaged"):
            list(store)

    def test_moving_the_damaged_file_away_recovers_the_store(self, damaged: Path) -> None:
        with FeedbackStore.open(damaged, 5) as store:
            with pytest.raises(FeedbackError, match="is damaged"):
                store.add(verdict(98))
            damaged.rename(f"{damaged}.damaged")
            store.add(verdict(99))
            assert numbers(store) == [99]

    def test_unusable_file_does_not_end_the_run(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "notes.txt").write_text("notes " * 1000)
        (tmp_path / "file").write_text("")
        for path, message in (
            (tmp_path / "notes.txt", "is damaged or not a feedback file"),
            (tmp_path / "file" / "feedback.db", "Use another path"),
            (tmp_path, "use another path"),
        ):
            caplog.clear()
            with FeedbackStore.open(path, 5) as store:
                assert message in caplog.text
                with pytest.raises(FeedbackError, match=message):
                    store.add(verdict())
        assert (tmp_path / "notes.txt").read_text() == "notes " * 1000
        with pytest.raises(FeedbackError, match="not a feedback file"):
            FeedbackStore.open_to_read(tmp_path / "notes.txt")

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("CREATE TABLE cookies (a)", "database of another program"),
            ("PRAGMA application_id = 7", "database of another program"),
            ("PRAGMA application_id = 1801741922; PRAGMA user_version = 9", "feedback schema 9"),
        ],
    )
    def test_foreign_database_is_left_unchanged(self, tmp_path: Path, script: str, message: str) -> None:
        path = tmp_path / "other.db"
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()
        before = path.read_bytes()
        openers: tuple[Callable[[], FeedbackStore], ...] = (
            lambda: FeedbackStore.open(path, 5),
            lambda: FeedbackStore.open_to_read(path),
        )
        for open_ in openers:
            with pytest.raises(UsageError, match=message):
                open_()
        assert path.read_bytes() == before

    def test_missing_file_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"The feedback file .* does not exist"):
            FeedbackStore.open_to_read(tmp_path / "none.db")
        assert not (tmp_path / "none.db").exists()


@pytest.mark.skipif(os.name != "posix", reason="file modes need POSIX")
def test_new_file_is_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with FeedbackStore.open(tmp_path / "feedback.db", 5):
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes["feedback.db"] == 0o600
    assert set(modes.values()) == {0o600}, "the log too"
