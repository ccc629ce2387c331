"""Distributed training equals single-process training: started by torchrun on the CPU with gloo."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_toys import CLASSES, ONE_THREAD, SIDE, Listener, metrics_of, tiny_config, tiny_trainer

from kdedge.config.train_config import TrainConfig
from kdedge.models.run_folder import BEST, LAST, read_run
from kdedge.models.weight_files import read_state
from kdedge.training.augmentation import Augmentation
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan
from kdedge.training.augmentation.image_augmenter import ImageAugmenter
from kdedge.training.batches import Batch, Batches
from kdedge.training.distributed import ProcessGroup, join_process_group
from kdedge.training.teachers.targets import NoTeacher
from kdedge.training.training_run import start_run
from kdedge_export.scenes import render_scene
from kdedge_runtime.errors import UsageError

EPOCHS, BATCH_SIZE = 2, 16
LEARNING_RATE = 0.001
"""Small learning rate: the order of summation differs between one and two processes, and training amplifies it."""
SIZES = ["--epochs", EPOCHS, "--batch-size", BATCH_SIZE, "--lr", LEARNING_RATE, "--device", "cpu"]


def torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "kdedge", *map(str, arguments)]
    return subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=300, check=False)


LOSS = {"default": "ce:0.1,kd:0.9,dist:0.1,hint:0.1,mapall:1", "few-images": "ce:0.1,kd:0.9,mapall:1"}
"""Mixed images are tested without `dist`: nearly constant rows of mixtures have no stable Pearson correlation."""


@pytest.fixture(scope="module", params=LOSS)
def runs(
    request: pytest.FixtureRequest, scenes: Path, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """The same distillation by one and two processes; `dist` and `few-images` use whole batches.

    A few images are unlabeled, so that the processes have different numbers of labels.
    """
    folder, recipe, loss = tmp_path_factory.mktemp("group"), request.param, LOSS[request.param]
    more, rng = folder / "more", np.random.default_rng(5)
    more.mkdir()
    for index in range(8):
        Image.fromarray(render_scene(CLASSES[index % 3], rng, SIDE).image).save(more / f"{index}.png")
    alone = TrainConfig(
        str(scenes),
        "small:resnet8",
        teacher=(str(teacher_run),),
        unlabeled=(str(more),),
        recipe=recipe,
        loss=loss,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        lr=LEARNING_RATE,
    )
    start_run(alone, folder / "1", Listener(), "cpu")
    options = ["--student", "small:resnet8", *SIZES, "--recipe", recipe, "--loss", loss, "--out", folder / "2"]
    options += ["--unlabeled", more]
    done = torchrun(2, "distill", scenes, "--teacher", teacher_run, *options)
    assert done.returncode == 0, done.stderr
    (folder / "2.log").write_text(done.stderr)
    return {processes: folder / str(processes) for processes in (1, 2)}


def test_two_processes_give_the_weights_of_one(runs: dict[int, Path]) -> None:
    for name in (LAST, BEST):
        alone, together = read_state(runs[1] / name), read_state(runs[2] / name)
        assert set(alone) == set(together)
        for tensor, value in alone.items():
            assert torch.allclose(value.float(), together[tensor].float(), rtol=1e-4, atol=1e-4), tensor


def test_two_processes_give_the_metrics_of_one(runs: dict[int, Path]) -> None:
    for alone, together in zip(metrics_of(runs[1]), metrics_of(runs[2]), strict=True):
        assert together == pytest.approx(alone, rel=5e-4)


def test_only_one_process_prints(runs: dict[int, Path]) -> None:
    log = runs[2].with_suffix(".log").read_text()
    assert "2 processes" in log
    assert log.count("epoch   1/2") == log.count("Next: kdedge export") == 1


def test_run_of_two_processes_is_usable(runs: dict[int, Path]) -> None:
    record = read_run(runs[2])
    assert record.result is not None and record.result["last"]["epoch"] == 2


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(mixup=1.0, cutmix=1.0, erase=0.5)])
def test_parts_of_all_processes_form_the_batches_of_one(scenes: Path, augmentation: Augmentation) -> None:
    recipe = tiny_config(epochs=2, batch_size=12, learning_rate=0.01, loss={"ce": 1.0}, augmentation=augmentation)
    images = tiny_trainer(scenes, recipe).batches.samples
    views = AugmentationPlan(ImageAugmenter(augmentation, 32, 32), len(images), torch.device("cpu"), seed=0, kept=0)

    def batches(rank: int, size: int) -> list[Batch]:
        group = ProcessGroup(rank, size)
        return list(
            Batches(images, views, NoTeacher(), len(CLASSES), group, batch_size=12, task="classify").of(1, start=1)
        )

    for whole, *parts in zip(batches(0, 1), *(batches(rank, 3) for rank in range(3)), strict=True):
        assert len(whole.samples) == 12
        assert torch.equal(torch.cat([part.samples for part in parts]), whole.samples)
        assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


class Unmet(ProcessGroup):
    """Group of two processes without the other one, in which any communication would block."""

    def wait(self) -> None:
        pass

    def broadcast(self, values: list[float]) -> list[float]:
        return values


@pytest.mark.parametrize(
    ("batch", "processes", "message"),
    [
        (15, 2, r"A batch of 15 samples cannot be divided among 2 processes\. .*--batch-size such as 14\."),
        (64, 5, r"A batch of 48 samples cannot be divided among 5 processes\. .*--batch-size such as 45\."),
        (3, 4, r"A batch of 3 samples cannot be divided among 4 processes\. Start fewer processes\."),
    ],
    ids=["odd", "more than the images", "more processes than images"],
)
def test_indivisible_batch_is_rejected(
    scenes: Path,
    teacher_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    processes: int,
    message: str,
) -> None:
    monkeypatch.setattr("kdedge.training.training_run.join_process_group", lambda _device: Unmet(0, processes))
    request = TrainConfig(str(scenes), "small:resnet8", teacher=(str(teacher_run),), epochs=EPOCHS, batch_size=batch)
    with pytest.raises(UsageError, match=message):
        start_run(request, tmp_path / "run", Listener(), "cpu")
    assert not (tmp_path / "run").exists()


def test_single_process_is_a_group_of_one() -> None:
    group = join_process_group(torch.device("cpu"))
    assert group == ProcessGroup(0, 1) and group.is_main
    rows = torch.arange(6.0)
    assert torch.equal(group.shard(rows), rows) and torch.equal(group.gather(rows), rows)


def test_incomplete_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"cannot connect.*torchrun --nproc-per-node N -m kdedge"):
        join_process_group(torch.device("cpu"))


@pytest.mark.models
def test_batch_norm_with_activation_is_synchronized(scenes: Path, teacher_run: Path, tmp_path: Path) -> None:
    """timm's models have their own batch normalization class."""
    for processes in (1, 2):
        options = [
            "--student",
            "timm:mobilenetv3_small_050",
            "--no-pretrained",
            *SIZES,
            "--out",
            tmp_path / str(processes),
        ]
        done = torchrun(processes, "distill", scenes, "--teacher", teacher_run, *options, "--loss", "ce:0.1,kd:0.1")
        assert done.returncode == 0, done.stderr
    alone, together = (read_state(tmp_path / str(processes) / LAST) for processes in (1, 2))
    for name, value in alone.items():
        if "running" in name:
            assert torch.allclose(value, together[name], rtol=1e-2, atol=1e-3), name
