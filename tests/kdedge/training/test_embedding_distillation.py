"""Distillation of embeddings: from any classifier or encoder to a student with prototypes, resumed and cached."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_toys import CLASSES, Listener, metrics_of

from kdedge.config.train_config import TrainConfig
from kdedge.models.embedding_network import EmbeddingNetwork
from kdedge.models.run_folder import BEST, LAST, read_run
from kdedge.models.teacher_source import load_teacher
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.model_export import export_model
from kdedge.training.compute_device import choose_device
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.sample_store import DeviceSamples
from kdedge.training.teachers.embedding_teacher import choose_samples, embedding_size, make_embedding_teacher
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.embedding import EMBEDDING
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.progress import no_progress

SMALL, CPU = "small:resnet8", choose_device("cpu")


@pytest.fixture
def request_for_embedding(scenes: Path, teacher_run: Path) -> TrainConfig:
    return TrainConfig(str(scenes), SMALL, teacher=(str(teacher_run),), task="embedding", epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def embedding_run(scenes: Path, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Student after six epochs, with its files; read-only."""
    out = tmp_path_factory.mktemp("embedding") / "run"
    request = TrainConfig(str(scenes), SMALL, teacher=(str(teacher_run),), task="embedding", epochs=6, batch_size=16)
    start_run(request, out, Listener(), "cpu")
    export_model(str(out), precisions=["int8"], profile=load_profile("generic"))
    return out


def test_student_follows_the_teacher(embedding_run: Path) -> None:
    first, *_, last = metrics_of(embedding_run)
    assert last["loss_cosine"] < 0.9 * first["loss_cosine"]
    assert last["val_map_pearson"] > first["val_map_pearson"]
    assert last["loss_rkd"] < 0.9 * first["loss_rkd"]


def test_run_and_files_are_of_the_task(embedding_run: Path) -> None:
    record, trained = read_run(embedding_run), load_trained(str(embedding_run))
    assert record.task == trained.task == EMBEDDING
    assert isinstance(trained.model, EmbeddingNetwork) and record.model.embedding == 64  # pooled channels of resnet8
    for name in ("model.onnx", "model.int8.onnx"):
        metadata = Model.load(embedding_run / name).metadata
        assert metadata.task == EMBEDDING and metadata.labels == CLASSES
        assert metadata.embedding is not None and metadata.embedding.size == 64
        assert metadata.temperature == 1


def test_prototypes_are_mean_embeddings_of_the_teacher(scenes: Path, teacher_run: Path) -> None:
    teacher = load_teacher(str(teacher_run), None)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), np.arange(12) % 3
    store = DeviceSamples(images, labels, CPU.device)
    size = embedding_size(teacher)
    student = InstrumentedModel(EmbeddingNetwork(torch.nn.Flatten(), 3, size), teacher.input, CPU, is_headless=True)
    made = make_embedding_teacher(teacher, student, store, CPU, no_progress)
    network = made.watched.model
    assert isinstance(network, EmbeddingNetwork)
    with torch.no_grad():
        embeddings = network.encoder(made.watched.front_end(torch.from_numpy(images))).numpy()
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = np.stack([unit[labels == each].mean(axis=0) for each in range(3)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    for holder in (network, student.model):
        assert np.allclose(holder.similarity.prototypes.numpy(), expected, atol=1e-5)


def test_embedding_run_teaches_with_its_own_projection(embedding_run: Path) -> None:
    teacher = load_teacher(str(embedding_run), None)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    store = DeviceSamples(images, np.arange(6) % 2, CPU.device)
    network = EmbeddingNetwork(torch.nn.Flatten(), 2, embedding_size(teacher))
    student = InstrumentedModel(network, teacher.input, CPU, is_headless=True)
    made = make_embedding_teacher(teacher, student, store, CPU, no_progress).watched
    x = made.front_end(torch.from_numpy(images))
    with torch.no_grad():
        assert torch.equal(made.model.encoder(x), load_trained(str(embedding_run)).model.eval().encoder(x))
    assert made.model.similarity.prototypes.shape == (2, 64)


def test_encoder_without_classes_teaches_embeddings(scenes: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), weights)
    request = TrainConfig(
        str(scenes),
        SMALL,
        teacher=("timm:test_vit",),
        teacher_weights=(str(weights),),
        task="embedding",
        loss="cosine,rkd",
        size=32,
        epochs=1,
    )
    start_run(request, tmp_path / "run", Listener(), "cpu")
    assert read_run(tmp_path / "run").model.embedding == 64


class Interrupts(Listener):
    """Callback that ends training after its first epoch."""

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_resumed_run_equals_an_uninterrupted_one(request_for_embedding: TrainConfig, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    start_run(request_for_embedding, whole, Listener(), "cpu")
    assert start_run(request_for_embedding, parted, Interrupts(), "cpu").result is None
    continue_run(request_for_embedding, parted, Listener(), "cpu")
    first, second = load_file(whole / LAST), load_file(parted / LAST)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_cached_embeddings_train_the_same_student(request_for_embedding: TrainConfig, tmp_path: Path) -> None:
    cached = replace(request_for_embedding, cache_teacher=1, recipe="default")
    start_run(cached, tmp_path / "first", Listener(), "cpu")
    (kept,) = (tmp_path / "teacher-outputs").glob("*/view-0.safetensors")
    assert load_file(kept)["features"].shape == (48, 64, 1, 1)
    start_run(cached, tmp_path / "second", Listener(), "cpu")
    first, second = (load_file(tmp_path / name / BEST) for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_corrected_labels_use_no_cached_embeddings(
    request_for_embedding: TrainConfig, scenes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    request = replace(request_for_embedding, data=str(data), cache_teacher=1, recipe="default", epochs=1)
    start_run(request, tmp_path / "first", Listener(), "cpu")
    # The same images in the same order, the last one of a class with the label of the next.
    (data / "train" / CLASSES[0] / "15.png").rename(data / "train" / CLASSES[1] / "-.png")
    start_run(request, tmp_path / "second", Listener(), "cpu")
    assert len(list((tmp_path / "teacher-outputs").iterdir())) == 2


def test_every_class_is_chosen() -> None:
    targets = torch.tensor([0] * 50_000 + [1, 2])
    chosen = targets[choose_samples(targets, 3)]
    assert chosen.bincount().tolist() == [6_666, 1, 1]
    with pytest.raises(DataError, match="Class 3 "):
        choose_samples(targets, 4)


class TestErrors:
    def test_embedding_run_teaches_no_classes(
        self, embedding_run: Path, request_for_embedding: TrainConfig, tmp_path: Path
    ) -> None:
        request = replace(request_for_embedding, teacher=(str(embedding_run),), task=None)
        with pytest.raises(UsageError, match="--task embedding"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_several_teachers(self, request_for_embedding: TrainConfig, teacher_run: Path, tmp_path: Path) -> None:
        request = replace(request_for_embedding, teacher=(str(teacher_run),) * 2)
        with pytest.raises(UsageError, match="single --teacher"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_model_file(self, request_for_embedding: TrainConfig, exported_run: Path, tmp_path: Path) -> None:
        request = replace(request_for_embedding, teacher=(str(exported_run / "model.onnx"),))
        with pytest.raises(UsageError, match="PyTorch teacher"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_images_without_classes(self, request_for_embedding: TrainConfig, scenes: Path, tmp_path: Path) -> None:
        request = replace(request_for_embedding, data=str(scenes / "train" / CLASSES[0]))
        with pytest.raises(UsageError, match="--unlabeled"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_embeddings_of_different_sizes(self, scenes: Path, teacher_run: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(scenes), "small:resnet8x4", teacher=(str(teacher_run),), loss="ce,cosine", epochs=1)
        with pytest.raises(UsageError, match="same size"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_pooled_and_spatial_features(self, scenes: Path, teacher_run: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(scenes), SMALL, teacher=(str(teacher_run),), loss="ce,at,rkd", epochs=1)
        with pytest.raises(UsageError, match="at compares spatial features, but rkd"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_frozen_layers(self) -> None:
        with pytest.raises(UsageError, match="--freeze"):
            TrainConfig("data", SMALL, teacher=("a",), weights="w.safetensors", freeze=True, task="embedding")


def test_relations_need_no_embedding_task(scenes: Path, teacher_run: Path, tmp_path: Path) -> None:
    request = TrainConfig(str(scenes), "small:resnet8x4", teacher=(str(teacher_run),), loss="ce,rkd", epochs=1)
    start_run(request, tmp_path / "run", Listener(), "cpu")
    assert read_run(tmp_path / "run").task == "classify"
