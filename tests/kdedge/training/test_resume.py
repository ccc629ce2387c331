"""A run that is killed and resumed equals an uninterrupted one, bit for bit.

The runs are real processes that receive a real SIGKILL: at a given step, while writing a file, or at random times.
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from training_toys import ONE_THREAD, Listener, Outcome, kdedge_command, metrics_of, without_time, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.models.run_folder import BEST, LAST, METRICS, RECORD, is_run, lock_run, read_run, write_run
from kdedge.training import checkpoint
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.files import atomic_path

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torchvision", "training_toys"])


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(Listener):
    """Listener that kills its own process after a step, given as (epoch, step)."""

    def __init__(self, when: tuple[int, int]) -> None:
        super().__init__()
        self.when = when

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        if (epoch, step) == self.when:
            kill_myself()


def run_until_killed(request: TrainConfig, out: Path, *, step: tuple[int, int] = (-1, -1), write: int = -1) -> None:
    """Train in this process, and die after a step or halfway through the given write of a weights file."""
    torch.set_num_threads(1)
    save_file, writes = checkpoint.save_file, iter(range(1000))

    def save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata=metadata)
        if next(writes) == write:
            os.truncate(path, path.stat().st_size // 2)
            kill_myself()

    checkpoint.save_file = save
    start_run(request, out, Killer(step), "cpu")


def killed(request: TrainConfig, out: Path, **moment: Any) -> None:
    process = processes.Process(target=run_until_killed, args=(request, out), kwargs=moment)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def assert_equal_runs(run: Path, expected: Path) -> None:
    for name in (LAST, BEST):
        ours, theirs = load_file(run / name), load_file(expected / name)
        assert set(ours) == set(theirs)
        assert not [tensor for tensor in ours if not torch.equal(ours[tensor], theirs[tensor])], name
    assert metrics_of(run) == metrics_of(expected)
    result, wanted = read_run(run).result, read_run(expected).result
    assert result is not None and wanted is not None
    assert {key: without_time(result[key]) for key in ("best", "last")} == {
        key: without_time(wanted[key]) for key in ("best", "last")
    }


@dataclass(frozen=True)
class Reference:
    """Uninterrupted run."""

    request: TrainConfig
    folder: Path


@pytest.fixture(scope="module")
def plain(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Labels only: five epochs of three steps."""
    request = TrainConfig(str(scenes), "small:resnet8", epochs=5, batch_size=16, lr=0.05, seed=3)
    folder = tmp_path_factory.mktemp("plain") / "run"
    start_run(request, folder, Listener(), "cpu")
    return Reference(request, folder)


@pytest.fixture(scope="module")
def dropout(scenes: Path, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """All uses of random numbers and a teacher: three epochs of two steps, with dropout."""
    request = TrainConfig(
        str(scenes),
        "mobilenet_v3_small",
        pretrained=False,
        teacher=(str(teacher_run),),
        epochs=3,
        batch_size=9,
        output_stride=8,
        samples_per_class=6,
    )
    folder = tmp_path_factory.mktemp("dropout") / "run"
    start_run(request, folder, Listener(), "cpu")
    return Reference(request, folder)


class TestKilled:
    @pytest.mark.parametrize(
        ("moment", "epochs"),
        [
            ({"step": (0, 2)}, 0),
            ({"step": (2, 1)}, 2),
            ({"step": (3, 3)}, 3),
            ({"write": 0}, 0),  # best.safetensors of the first epoch
            ({"write": 1}, 0),  # last.safetensors of the first epoch, after best.safetensors and metrics.jsonl
        ],
        ids=["first epoch", "middle of an epoch", "last step of an epoch", "writing best", "writing last"],
    )
    def test_killed_at_a_given_moment(
        self, plain: Reference, tmp_path: Path, moment: dict[str, Any], epochs: int
    ) -> None:
        killed(plain.request, tmp_path / "run", **moment)
        listener = Listener()
        continue_run(plain.request, tmp_path / "run", listener, "cpu")
        assert [metrics["epoch"] for metrics in listener.epochs] == list(range(epochs + 1, 6)), "no epoch is repeated"
        assert_equal_runs(tmp_path / "run", plain.folder)

    def test_killed_repeatedly_with_dropout_and_teacher(self, dropout: Reference, tmp_path: Path) -> None:
        assert any(isinstance(layer, torch.nn.Dropout) and layer.p > 0 for layer in mobilenet().modules())
        killed(dropout.request, tmp_path / "run", step=(1, 1))
        again = processes.Process(target=continue_until_killed, args=(dropout.request, tmp_path / "run", (2, 2)))
        again.start()
        again.join(120)
        assert again.exitcode == -signal.SIGKILL
        continue_run(dropout.request, tmp_path / "run", Listener(), "cpu")
        assert_equal_runs(tmp_path / "run", dropout.folder)

    def test_killed_command_at_random_times(
        self, command: Callable[..., Outcome], plain: Reference, tmp_path: Path
    ) -> None:
        options = ["--model", "small:resnet8", "--epochs", "5", "--batch-size", "16", "--lr", "0.05", "--seed", "3"]
        typed = ["train", plain.request.data, *options, "--out", tmp_path / "run", "--device", "cpu"]
        process = subprocess.Popen(kdedge_command(*typed), env=ONE_THREAD, stderr=subprocess.DEVNULL)
        wait_for(lambda: (tmp_path / "run" / METRICS).is_file() or process.poll() is not None)
        time.sleep(random.Random(0).uniform(0, 0.6))
        process.kill()
        process.wait()
        resumed = command(*typed, "--resume")
        assert resumed.code == 0, resumed.err
        assert_equal_runs(tmp_path / "run", plain.folder)

    def test_killed_at_twenty_random_moments(self, plain: Reference, tmp_path: Path) -> None:
        """Includes kills during planning and after the end; the folder is readable after every kill."""
        request, moments, kills = replace(plain.request, epochs=40), random.Random(11), 0
        start_run(request, tmp_path / "straight", Listener(), "cpu")
        run = tmp_path / "run"
        while kills < 20:
            process = processes.Process(target=begin_or_continue, args=(request, run))
            process.start()
            process.join(moments.uniform(0.2, 1.0))
            process.kill()
            process.join()
            kills += 1
            if is_run(run):
                read_run(run)
            for name in (LAST, BEST):
                assert not (run / name).exists() or load_file(run / name)
        begin_or_continue(request, run)
        assert_equal_runs(run, tmp_path / "straight")


def begin_or_continue(request: TrainConfig, out: Path) -> None:
    torch.set_num_threads(1)
    (continue_run if is_run(out) else start_run)(request, out, Listener(), "cpu")


def continue_until_killed(request: TrainConfig, out: Path, step: tuple[int, int]) -> None:
    torch.set_num_threads(1)
    continue_run(request, out, Killer(step), "cpu")


def mobilenet() -> torch.nn.Module:
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(weights=None)


def wait_for(happened: Callable[[], bool], limit_s: float = 60) -> None:
    until = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.01)


@pytest.fixture
def half_done(plain: Reference, tmp_path: Path) -> Path:
    """Reference run without the record of its end."""
    shutil.copytree(plain.folder, tmp_path / "half")
    write_run(tmp_path / "half", replace(read_run(plain.folder), result=None))
    return tmp_path / "half"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestFinished:
    def test_complete_run_does_nothing(self, plain: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
        before, listener = content(plain.folder), Listener()
        monkeypatch.setattr("kdedge.training.run_parts.build_trainer_parts", None)
        record = continue_run(plain.request, plain.folder, listener, "cpu")
        assert record == read_run(plain.folder)
        assert content(plain.folder) == before
        assert listener.plan == [("resume", f"{plain.folder} is complete after 5 epochs")]

    def test_run_killed_after_its_last_epoch_gets_its_record(self, plain: Reference, half_done: Path) -> None:
        listener = Listener()
        record = continue_run(plain.request, half_done, listener, "cpu")
        assert not listener.epochs
        assert record.result == read_run(plain.folder).result
        assert_equal_runs(half_done, plain.folder)


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epochs": 9}, "started with epochs 5, not 9"),
            ({"lr": 0.1}, r"started with lr 0\.05, not 0\.1"),
            ({"seed": 4}, "started with seed 3, not 4"),
            ({"model": "small:resnet14"}, "started with model 'small:resnet8', not 'small:resnet14'"),
            ({"flip": False}, "started with flip 'left to its default', not False"),
            ({"samples_per_class": 2}, "started with samples-per-class 'left to its default', not 2"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_different_options(self, plain: Reference, half_done: Path, change: dict[str, Any], message: str) -> None:
        before = content(half_done)
        with pytest.raises(UsageError, match=rf"{message}\. .*--out"):
            continue_run(replace(plain.request, **change), half_done, Listener(), "cpu")
        assert content(half_done) == before

    def test_different_command(self, plain: Reference, half_done: Path, teacher_run: Path) -> None:
        with pytest.raises(UsageError, match=r"created by kdedge train\. Continue it with kdedge train --resume"):
            continue_run(replace(plain.request, teacher=(str(teacher_run),)), half_done, Listener(), "cpu")

    def test_folder_without_run(self, plain: Reference, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not a run folder"):
            continue_run(plain.request, tmp_path, Listener(), "cpu")

    @pytest.mark.parametrize("change", ["removed", "added", "replaced"])
    def test_changed_images(self, plain: Reference, tmp_path: Path, change: str) -> None:
        data = write_scenes(tmp_path / "data", train=4, val=2)
        request = replace(plain.request, data=str(data), epochs=1, batch_size=4)
        start_run(request, tmp_path / "run", Listener(), "cpu")
        write_run(tmp_path / "run", replace(read_run(tmp_path / "run"), result=None))
        picture = next((data / "train").rglob("*.png"))
        if change == "removed":
            picture.unlink()
        else:
            Image.new("RGB", (40, 40)).save(picture if change == "replaced" else picture.with_name("new.png"))
        before = content(tmp_path / "run")
        with pytest.raises(DataError, match=r"have changed since .*another --out"):
            continue_run(request, tmp_path / "run", Listener(), "cpu")
        assert content(tmp_path / "run") == before

    def test_unreadable_image(self, plain: Reference, tmp_path: Path) -> None:
        data = write_scenes(tmp_path / "data", train=4, val=2)
        request = replace(plain.request, data=str(data), epochs=1, batch_size=4)
        start_run(request, tmp_path / "run", Listener(), "cpu")
        write_run(tmp_path / "run", replace(read_run(tmp_path / "run"), result=None))
        picture = next((data / "train").rglob("*.png"))
        picture.write_bytes(b"x" * picture.stat().st_size)  # same name and size
        with pytest.raises(DataError, match=r"started with 12 samples .*, but 11 and 6 are readable now"):
            continue_run(request, tmp_path / "run", Listener(), "cpu")

    def test_changed_recipe(self, plain: Reference, tmp_path: Path) -> None:
        recipe = tmp_path / "mine.toml"
        recipe.write_text("[loss]\nce = 1\n")
        request = replace(plain.request, recipe=str(recipe), epochs=1)
        start_run(request, tmp_path / "run", Listener(), "cpu")
        write_run(tmp_path / "run", replace(read_run(tmp_path / "run"), result=None))
        recipe.write_text("[loss]\nce = 2\n")
        with pytest.raises(UsageError, match=r"recipe .*mine\.toml differs .*--recipe"):
            continue_run(request, tmp_path / "run", Listener(), "cpu")
        assert continue_run(replace(request, recipe=None), tmp_path / "run", Listener(), "cpu").result is not None

    def test_folder_locked_by_another_process(self, plain: Reference, half_done: Path) -> None:
        with lock_run(half_done), pytest.raises(UsageError, match=r"Another process is training in .*--out"):
            continue_run(plain.request, half_done, Listener(), "cpu")

    def test_changed_teacher(self, scenes: Path, teacher_run: Path, tmp_path: Path) -> None:
        shutil.copytree(teacher_run, tmp_path / "teacher")
        request = TrainConfig(
            str(scenes), "small:resnet8", teacher=(str(tmp_path / "teacher"),), epochs=1, batch_size=16
        )
        start_run(request, tmp_path / "run", Listener(), "cpu")
        write_run(tmp_path / "run", replace(read_run(tmp_path / "run"), result=None))
        shutil.copy(teacher_run / LAST, tmp_path / "teacher" / BEST)
        with pytest.raises(UsageError, match=r"teacher .* has changed since"):
            continue_run(request, tmp_path / "run", Listener(), "cpu")

    def test_renamed_teacher_is_accepted(self, scenes: Path, teacher_run: Path, tmp_path: Path) -> None:
        """Published weights may get a more specific name in a later version."""
        weights = (str(teacher_run / BEST),)
        request = TrainConfig(
            str(scenes), "small:resnet8", teacher=("small:resnet8",), teacher_weights=weights, epochs=1
        )
        record = start_run(request, tmp_path / "run", Listener(), "cpu")
        assert record.teacher is not None and record.teacher["source"] == "small:resnet8"
        write_run(tmp_path / "run", replace(record, result=None, teacher=record.teacher | {"source": "resnet8"}))
        assert continue_run(request, tmp_path / "run", Listener(), "cpu").result is not None

    def test_best_weights_in_place_of_the_checkpoint(self, plain: Reference, half_done: Path) -> None:
        shutil.copy(half_done / BEST, half_done / LAST)
        with pytest.raises(UsageError, match=r"last\.safetensors holds only weights.* --weights FILE"):
            continue_run(plain.request, half_done, Listener(), "cpu")

    def test_damaged_checkpoint(self, plain: Reference, half_done: Path) -> None:
        (half_done / LAST).write_bytes((half_done / LAST).read_bytes()[:1000])
        with pytest.raises(UsageError, match="Cannot read the checkpoint"):
            continue_run(plain.request, half_done, Listener(), "cpu")


def test_checkpoint_without_record_is_not_resumed(plain: Reference, tmp_path: Path) -> None:
    run = shutil.copytree(plain.folder, tmp_path / "run")
    (run / RECORD).unlink()
    other = replace(plain.request, seed=4, epochs=2)
    killed(other, run, step=(0, 2))
    listener = Listener()
    continue_run(other, run, listener, "cpu")
    assert [line["epoch"] for line in listener.epochs] == [1, 2]


def test_partial_files_of_a_killed_process_are_removed(plain: Reference, half_done: Path) -> None:
    killed = [atomic_path(half_done / name) for name in (LAST, BEST, RECORD, METRICS)]
    for writing in killed:
        writing.__enter__().write_bytes(b"half")
    assert len(content(half_done)) == 8
    continue_run(plain.request, half_done, Listener(), "cpu")
    assert set(content(half_done)) == {"run.json", LAST, BEST, METRICS}


class TestElsewhere:
    def test_resume_from_another_working_directory(
        self, scenes: Path, teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(teacher_run.parent)
        request = TrainConfig(str(scenes), "small:resnet8", teacher=(teacher_run.name,), epochs=1, batch_size=16)
        start_run(request, tmp_path / "run", Listener(), "cpu")
        write_run(tmp_path / "run", replace(read_run(tmp_path / "run"), result=None))
        monkeypatch.chdir(tmp_path)
        assert continue_run(request, tmp_path / "run", Listener(), "cpu").result is not None

    def test_resume_without_the_initial_weights(
        self, plain: Reference, scenes: Path, tmp_path: Path, teacher_run: Path
    ) -> None:
        weights = shutil.copy(teacher_run / BEST, tmp_path / "start.safetensors")
        request = TrainConfig(str(scenes), "small:resnet8", weights=str(weights), epochs=2, batch_size=16)
        killed(request, tmp_path / "run", step=(1, 1))
        Path(weights).unlink()
        record = continue_run(request, tmp_path / "run", Listener(), "cpu")
        assert record.result is not None and record.result["last"]["epoch"] == 2
