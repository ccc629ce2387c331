"""SIGTERM and Ctrl-C write a checkpoint, and the run resumes at exactly that step."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training_toys import ONE_THREAD, Listener, Outcome, kdedge_command, metrics_of

from kdedge.config.train_config import TrainConfig
from kdedge.models.run_folder import BEST, LAST, METRICS, read_run
from kdedge.training.interruption import stop_requests
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.errors import KdedgeError


class Terminator(Listener):
    """Listener that sends SIGTERM to its own process after a step, given as (epoch, step)."""

    signal_number = signal.SIGTERM

    def __init__(self, when: tuple[int, int]) -> None:
        super().__init__()
        self.when = when

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        super().on_step(epoch, step, steps, parts)
        if (epoch, step) == self.when:
            os.kill(os.getpid(), self.signal_number)


class Interrupter(Terminator):
    """Listener that sends SIGINT instead."""

    signal_number = signal.SIGINT


@pytest.fixture(scope="module")
def request_with_everything(scenes: Path, teacher_run: Path) -> TrainConfig:
    """Request with all uses of random numbers: dropout, a teacher, trained projections and mixed images."""
    recipe = scenes.parent / "everything.toml"
    recipe.write_text("[loss]\nce = 1\nhint = {}\nmapall = 5\n[augmentation]\nmixup = 0.2\nerase = 0.5\n")
    return TrainConfig(
        str(scenes),
        "mobilenet_v3_small",
        pretrained=False,
        teacher=(str(teacher_run),),
        recipe=str(recipe),
        epochs=3,
        batch_size=9,
        output_stride=8,
        samples_per_class=9,
    )


@pytest.fixture(scope="module")
def uninterrupted(request_with_everything: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    start_run(request_with_everything, out, Listener(), "cpu")
    return out


@pytest.mark.parametrize("when", [(0, 1), (1, 2), (1, 3), (2, 3)], ids=str)
def test_stopped_run_equals_uninterrupted_run(
    request_with_everything: TrainConfig, uninterrupted: Path, tmp_path: Path, when: tuple[int, int]
) -> None:
    stopped = start_run(request_with_everything, tmp_path / "run", Terminator(when), "cpu")
    epoch, step = when
    if when == (2, 3):
        assert stopped.result is not None, "after the last step there is nothing to stop"
    else:
        assert stopped.result is None
        assert (tmp_path / "run" / LAST).is_file()
        listener = Listener()
        continue_run(request_with_everything, tmp_path / "run", listener, "cpu")
        # Only the rest of the interrupted epoch is trained; an epoch has three steps.
        assert listener.steps == 9 - 3 * epoch - step
    for name in (LAST, BEST):
        ours, theirs = load_file(tmp_path / "run" / name), load_file(uninterrupted / name)
        assert [tensor for tensor in ours if not torch.equal(ours[tensor], theirs[tensor])] == []
    assert metrics_of(tmp_path / "run") == metrics_of(uninterrupted)


def test_ctrl_c_saves_the_exact_step(request_with_everything: TrainConfig, uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        start_run(request_with_everything, tmp_path / "run", Interrupter((1, 2)), "cpu")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    listener = Listener()
    continue_run(request_with_everything, tmp_path / "run", listener, "cpu")
    assert listener.steps == 9 - 3 - 2
    assert metrics_of(tmp_path / "run") == metrics_of(uninterrupted)


def test_second_ctrl_c_stops_immediately() -> None:
    with stop_requests() as must_stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert must_stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_non_finite_loss_is_not_saved_when_stopping(scenes: Path, tmp_path: Path) -> None:
    class Spoiler(Terminator):
        def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
            if (epoch, step) == self.when:
                parts += float("nan")
            super().on_step(epoch, step, steps, parts)

    request = TrainConfig(str(scenes), "small:resnet8", epochs=4, batch_size=16, lr=0.01)
    with pytest.raises(KdedgeError, match=r"not finite in epoch 2.*kept"):
        start_run(request, tmp_path / "run", Spoiler((1, 1)), "cpu")
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run" / LAST).values())


def test_sigterm_prints_the_resume_command_and_exits_with_0(scenes: Path, tmp_path: Path) -> None:
    command = ["train", scenes, "--model", "small:resnet8", "--epochs", "400", "--batch-size", "16", "--seed", "3"]
    command += ["--out", tmp_path / "a run", "--device", "cpu"]
    lines = []
    with subprocess.Popen(kdedge_command(*command), env=ONE_THREAD, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if line.startswith("epoch   2/"):
                process.terminate()
        assert process.wait(60) == 0
    text = "".join(lines)
    assert "Stopped by SIGTERM" in text
    assert f"--out '{tmp_path / 'a run'}' --device cpu --resume\n" in text
    assert "Next:" not in text
    done = len((tmp_path / "a run" / METRICS).read_text().splitlines())
    assert 2 <= done < 400
    assert read_run(tmp_path / "a run").result is None
    resumed = subprocess.Popen(kdedge_command(*command, "--resume"), env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    assert resumed.stderr is not None
    first = next(line for line in resumed.stderr if line.startswith("epoch "))
    resumed.kill()
    resumed.communicate()
    assert first.startswith(f"epoch {done + 1:>3}/400")


def test_complete_run_is_not_stopped(command: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
    result = command(
        "train", scenes, "--model", "small:resnet8", "--epochs", 1, "--out", tmp_path / "r", "--device", "cpu"
    )
    assert result.code == 0
    assert "Stopped" not in result.err


def test_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as must_stop:
        assert not must_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert must_stop()
    assert signal.getsignal(signal.SIGTERM) is before
