"""Predictions in image order, independent of grouping and batching."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from validate_toys import CLASSES, METADATA, Toy, model_file, pictures

from kdedge_export.metrics.faithfulness import areas
from kdedge_export.metrics.torch_predictions import Predictions, predict, weight_bytes
from kdedge_export.modalities.image import IMAGE
from kdedge_export.torch_export import wrap_for_export
from kdedge_runtime import Explanation, Model

IMAGES = pictures(150)


def assert_close(a: Predictions, b: Predictions) -> None:
    assert a.logits == pytest.approx(b.logits, abs=1e-3)
    assert a.maps == pytest.approx(b.maps, abs=1e-3)
    assert (a.explained_class == b.explained_class).all()


def test_module_predictions_match_single_image_calls() -> None:
    toy = Toy()
    classes = np.arange(len(IMAGES)) % CLASSES
    with torch.no_grad():
        single = [toy(torch.from_numpy(IMAGES[i : i + 1]), torch.tensor([classes[i]])) for i in range(len(IMAGES))]
    expected = Predictions(*(np.concatenate([result[part].numpy() for result in single]) for part in range(3)))
    assert_close(predict(toy, IMAGES, classes), expected)


def test_file_explains_a_given_class_per_image(tmp_path: Path) -> None:
    toy = Toy()
    classes = np.random.default_rng(0).integers(0, CLASSES, len(IMAGES))
    model = model_file(toy, tmp_path / "toy.onnx")
    assert_close(predict(model, IMAGES, classes), predict(toy, IMAGES, classes))


def test_top_class_is_explained_by_default(tmp_path: Path) -> None:
    toy = Toy()
    for model in (toy, model_file(toy, tmp_path / "toy.onnx")):
        predictions = predict(model, IMAGES)
        assert (predictions.explained_class == predictions.logits.argmax(axis=1)).all()
        assert len(set(predictions.explained_class)) > 1


def test_file_without_a_map_returns_none(tmp_path: Path) -> None:
    model = model_file(Toy(), tmp_path / "toy.onnx", without_map=True)
    predictions = predict(model, IMAGES[:3], np.array([0, 1, 0]))
    assert predictions.maps is None
    assert predictions.logits.shape == (3, CLASSES)


def test_progress_counts_images_to_the_end(tmp_path: Path) -> None:
    for model in (Toy(), model_file(Toy(), tmp_path / "toy.onnx")):
        seen: list[int] = []
        predict(model, IMAGES, np.arange(len(IMAGES)) % 2, progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == len(IMAGES)
        assert max(np.diff([0, *seen])) <= 64


def test_module_is_evaluated_and_its_mode_restored() -> None:
    toy = Toy()
    toy.train()
    toy.head.eval()
    modes_inside: list[bool] = []
    toy.conv.register_forward_hook(lambda module, *_: modes_inside.append(module.training))
    predict(toy, IMAGES[:2])
    assert modes_inside == [False]
    assert (toy.training, toy.conv.training, toy.head.training) == (True, True, False)


def test_weight_bytes_counts_parameters_and_buffers() -> None:
    toy = Toy()
    parameters = 6 * 3 * 4 * 4 + 6 + 4 * 6 + 4
    assert weight_bytes(toy) == 4 * (parameters + 3 + 3)


@pytest.mark.parametrize(("method", "most"), [("gradcam", 64), ("input-gradient", 16), ("smoothgrad", 17)])
def test_batch_size_is_limited_when_differentiating_to_the_pixels(method: str, most: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(4, CLASSES))
    deployed = wrap_for_export(net, METADATA.input, method)
    seen: list[int] = []
    net[0].register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    predictions = predict(deployed, IMAGES[:80])
    assert max(seen) == most
    assert predictions.maps is not None
    assert len(predictions.maps) == 80


def test_pixel_method_file_runs_one_image_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = replace(METADATA, outputs=replace(METADATA.outputs, method="smoothgrad", target_layer=None))
    model = model_file(Toy(), tmp_path / "toy.onnx", metadata=metadata)
    same = model_file(Toy(), tmp_path / "same.onnx")
    blank = np.arange(16, dtype=np.float32).reshape(4, 4)
    expected = predict(same, IMAGES[:3]), areas(same, IMAGES[0], blank, 1, IMAGE.smoothed)
    seen: list[int] = []
    original = Model.predict

    def counted(self: Model, images: np.ndarray, class_index: int | None = None) -> Explanation:
        seen.append(len(images))
        return original(self, images, class_index)

    monkeypatch.setattr(Model, "predict", counted)
    assert_close(predict(model, IMAGES[:3]), expected[0])
    assert areas(model, IMAGES[0], blank, 1, IMAGE.smoothed) == pytest.approx(expected[1])
    assert set(seen) == {1}
