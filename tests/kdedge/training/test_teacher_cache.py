"""Cache of teacher outputs: the same training without the teacher."""

import json
import os
import shutil
import signal
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor
from training_toys import Listener, metrics_of, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.losses.loss_inputs import ModelOutput
from kdedge.models.run_folder import LAST
from kdedge.training.teachers import targets
from kdedge.training.teachers import teacher_cache as cache_module
from kdedge.training.teachers.teacher import NetworkTeacher
from kdedge.training.teachers.teacher_cache import TeacherCache, to_stored_precision
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.errors import KdedgeError, UsageError

KEY = {"teacher": "abc", "views": 2}


def a_prediction(count: int = 6, scale: float = 1.0) -> ModelOutput:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 5, generator=generator)
    maps = scale * torch.randn(count, 3, 4, 4, generator=generator)
    return ModelOutput(logits, logits.topk(3).indices, maps)


class TestFile:
    def test_roundtrip(self, tmp_path: Path) -> None:
        prediction = a_prediction()
        assert TeacherCache(tmp_path, KEY).read("view-0") is None
        TeacherCache(tmp_path, KEY).write("view-0", to_stored_precision(prediction))
        kept = TeacherCache(tmp_path, KEY).read("view-0")
        assert (
            kept is not None and kept.maps is not None and kept.classes is not None and prediction.classes is not None
        )
        assert kept.maps.dtype == torch.float16
        assert torch.equal(kept.logits, prediction.logits)
        assert torch.equal(kept.classes.long(), prediction.classes)

    @pytest.mark.parametrize(("offset", "spread"), [(4e5, 1e5), (300.0, 0.3)])
    def test_values_of_a_regression_are_exact(self, tmp_path: Path, offset: float, spread: float) -> None:
        values = offset + spread * torch.randn(6, 1)
        TeacherCache(tmp_path, KEY).write("view-0", to_stored_precision(ModelOutput(values)))
        kept = TeacherCache(tmp_path, KEY).read("view-0")
        assert kept is not None and torch.equal(kept.logits, values)

    def test_many_logits_are_stored_in_half_precision(self, tmp_path: Path) -> None:
        logits = torch.randn(6, 1000)
        TeacherCache(tmp_path, KEY).write("view-0", to_stored_precision(ModelOutput(logits)))
        kept = TeacherCache(tmp_path, KEY).read("view-0")
        assert kept is not None and kept.logits.dtype == torch.float16
        assert torch.allclose(kept.logits.float(), logits, atol=2e-3)

    @pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
    def test_maps_keep_their_shape_at_any_scale(self, tmp_path: Path, scale: float) -> None:
        prediction = a_prediction(scale=scale)
        cache = TeacherCache(tmp_path, KEY)
        cache.write("view-0", to_stored_precision(prediction))
        kept = cache.read("view-0")
        assert kept is not None and kept.maps is not None and prediction.maps is not None
        for ours, theirs in zip(kept.maps.float().flatten(0, 1), prediction.maps.flatten(0, 1), strict=True):
            together = torch.stack([ours.flatten(), theirs.flatten()])
            assert torch.corrcoef(together)[0, 1] > 0.999999

    def test_zero_map_stays_zero(self, tmp_path: Path) -> None:
        cache = TeacherCache(tmp_path, KEY)
        cache.write("view-0", to_stored_precision(replace(a_prediction(), maps=torch.zeros(6, 3, 4, 4))))
        kept = cache.read("view-0")
        assert kept is not None and kept.maps is not None and not kept.maps.any()

    def test_keys_have_separate_folders(self, tmp_path: Path) -> None:
        TeacherCache(tmp_path, KEY).write("view-0", to_stored_precision(a_prediction()))
        assert TeacherCache(tmp_path, KEY | {"teacher": "abd"}).read("view-0") is None

    def test_outputs_of_another_key_are_rejected(self, tmp_path: Path) -> None:
        cache = TeacherCache(tmp_path, KEY)
        (cache.folder / "key.json").write_text(json.dumps(KEY | {"teacher": "abd"}))
        with pytest.raises(UsageError, match=r"another teacher.*Remove that folder"):
            TeacherCache(tmp_path, KEY)

    def test_damaged_file_is_rejected(self, tmp_path: Path) -> None:
        cache = TeacherCache(tmp_path, KEY)
        cache.write("view-0", to_stored_precision(a_prediction()))
        (file,) = cache.folder.glob("view-0*")
        file.write_bytes(file.read_bytes()[:50])
        with pytest.raises(UsageError, match=r"Cannot read the teacher outputs in .*Remove the file"):
            cache.read("view-0")

    def test_insufficient_disk_space_is_an_error_before_writing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = TeacherCache(tmp_path, KEY)
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 100, 100))
        # 3 maps of 16 positions in 2 bytes, 5 logits and 3 classes in 4: 128 bytes per sample.
        with pytest.raises(KdedgeError, match=r"1,000,000 samples need 128\.0 MB.*--resume.*--cache-teacher"):
            cache.require_room(to_stored_precision(a_prediction()), 1_000_000)
        cache.require_room(to_stored_precision(a_prediction()), 0)

    def test_full_disk_leaves_no_partial_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def filling_up(tensors: dict[str, Tensor], path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        cache = TeacherCache(tmp_path, KEY)
        monkeypatch.setattr(cache_module, "save_file", filling_up)
        with pytest.raises(KdedgeError, match="No space left"):
            cache.write("view-0", to_stored_precision(a_prediction()))
        assert [path.name for path in cache.folder.iterdir()] == ["key.json"]


@pytest.fixture
def request_with_cache(scenes: Path, teacher_run: Path) -> TrainConfig:
    return TrainConfig(
        str(scenes),
        "small:resnet8",
        teacher=(str(teacher_run),),
        recipe="default",
        epochs=5,
        batch_size=16,
        lr=0.01,
        cache_teacher=2,
    )


class TestRun:
    @pytest.fixture(autouse=True)
    def one_batch_a_view(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Evaluate all training images in one batch, so that batches count views."""
        monkeypatch.setattr(targets, "evaluation_batch", lambda _: 64)

    def start(self, request: TrainConfig, out: Path) -> Listener:
        listener = Listener()
        start_run(request, out, listener, "cpu")
        return listener

    def test_teacher_is_evaluated_once_for_all_seeds_and_losses(
        self, request_with_cache: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.start(request_with_cache, tmp_path / "first").evaluated == 2, "one batch per view"

        def never(*_: Any) -> ModelOutput:
            raise AssertionError("the teacher was evaluated again")

        monkeypatch.setattr(NetworkTeacher, "__call__", never)
        for index, change in enumerate([{"seed": 1}, {"loss": "ce,kd"}, {"loss": "kd,map,cat:10"}, {"lr": 0.02}]):
            assert self.start(replace(request_with_cache, **change), tmp_path / str(index)).evaluated == 0
        (folder,) = (tmp_path / "teacher-outputs").iterdir()
        assert sorted(path.name for path in folder.iterdir()) == [
            "key.json", "val.safetensors", "view-0.safetensors", "view-1.safetensors",
        ]  # fmt: skip

    def test_cached_training_equals_online_training_up_to_rounding(
        self, request_with_cache: TrainConfig, tmp_path: Path
    ) -> None:
        """With a single view of unchanged images, every epoch has the same images."""
        still = tmp_path / "still.toml"
        still.write_text("[loss]\nce = 0.1\nkd = 0.9\nmapall = 5\n[augmentation]\nshift = 0\nflip = false\n")
        request = replace(request_with_cache, recipe=str(still), epochs=1, lr=1e-3)
        self.start(replace(request, cache_teacher=1), tmp_path / "kept")
        self.start(replace(request, cache_teacher=None), tmp_path / "evaluated")
        (ours,), (theirs,) = metrics_of(tmp_path / "kept"), metrics_of(tmp_path / "evaluated")
        for name in ("loss_ce", "loss_kd", "loss_mapall"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3)

    @pytest.mark.parametrize(
        "change", [{"samples_per_class": 8}, {"flip": False}, {"cache_teacher": 3}, {"size": 48}], ids=str
    )
    def test_other_data_or_views_are_recomputed(
        self, request_with_cache: TrainConfig, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        short = replace(request_with_cache, epochs=1)
        self.start(short, tmp_path / "first")
        assert self.start(replace(short, **change), tmp_path / "second").evaluated == 1

    def test_replaced_images_are_recomputed(self, request_with_cache: TrainConfig, tmp_path: Path) -> None:
        """Includes changes that keep names and sizes, since outputs belong to pixels."""
        data = write_scenes(tmp_path / "data", train=8, val=2)
        for picture in data.rglob("*.png"):
            Image.open(picture).save(picture.with_suffix(".bmp"))
            picture.unlink()
        request = replace(request_with_cache, data=str(data), epochs=1, batch_size=8)
        assert self.start(request, tmp_path / "first").evaluated == 1
        picture = next((data / "train").rglob("*.bmp"))
        ImageOps.invert(Image.open(picture)).save(picture)
        assert self.start(request, tmp_path / "second").evaluated == 1

    def test_unreadable_image_does_not_shift_outputs(self, request_with_cache: TrainConfig, tmp_path: Path) -> None:
        data = write_scenes(tmp_path / "data", train=8, val=2)
        request = replace(request_with_cache, data=str(data), epochs=1, batch_size=8, lr=1e-4)
        self.start(request, tmp_path / "first")
        picture = next((data / "train").rglob("*.png"))
        picture.write_bytes(b"x" * picture.stat().st_size)
        assert self.start(request, tmp_path / "kept").evaluated == 1

    def test_cache_computation_can_be_stopped(
        self, request_with_cache: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(targets, "evaluation_batch", lambda _: 16)
        listener = StopsAsking()
        assert start_run(request_with_cache, tmp_path / "run", listener, "cpu").result is None
        assert (listener.evaluated, listener.epochs) == (1, [])
        listener = Listener()
        assert continue_run(request_with_cache, tmp_path / "run", listener, "cpu").result is not None
        self.start(request_with_cache, tmp_path / "straight")
        ours, theirs = load_file(tmp_path / "run" / LAST), load_file(tmp_path / "straight" / LAST)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_run_resumes_with_cached_outputs(self, request_with_cache: TrainConfig, tmp_path: Path) -> None:
        self.start(request_with_cache, tmp_path / "straight")
        stopping = StopsAfter(2)
        assert start_run(request_with_cache, tmp_path / "run", stopping, "cpu").result is None
        listener = Listener()
        continue_run(request_with_cache, tmp_path / "run", listener, "cpu")
        assert listener.evaluated == 0
        ours, theirs = load_file(tmp_path / "run" / LAST), load_file(tmp_path / "straight" / LAST)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    @pytest.mark.parametrize(
        ("recipe", "message"),
        [
            (
                "[loss]\nce = 1",
                r"No term of the loss ce uses the teacher, .*Remove --cache-teacher",
            ),
            ("[loss]\nce = 1\nat = {}", "too large to cache. Remove --cache-teacher"),
            (
                "[loss]\nkd = 1\n[augmentation]\nmixup = 0.2",
                r"Mixed samples .* cannot be cached\. Remove --cache-teacher",
            ),
        ],
    )
    def test_uncacheable_recipes_are_rejected(
        self, request_with_cache: TrainConfig, tmp_path: Path, recipe: str, message: str
    ) -> None:
        (tmp_path / "mine.toml").write_text(recipe)
        with pytest.raises(UsageError, match=message):
            self.start(replace(request_with_cache, recipe=str(tmp_path / "mine.toml")), tmp_path / "run")


class StopsAfter(Listener):
    """Listener that stops its own process after some epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.left = epochs

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


class StopsAsking(Listener):
    """Listener that stops its own process while the cache is filled, in batches of 16."""

    def on_progress(self, step: str, done: int, total: int, /) -> None:
        super().on_progress(step, done, total)
        if step == "evaluating the teacher":
            os.kill(os.getpid(), signal.SIGTERM)
