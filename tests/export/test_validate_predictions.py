"""Predictions come back in the order of the images, whatever the grouping and batching behind them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from validate_toys import CLASSES, Toy, model_file, pictures

from kdedge_export.validate import Predictions, predict
from kdedge_export.validate.predictions import weight_bytes

IMAGES = pictures(150)


def assert_close(a: Predictions, b: Predictions) -> None:
    assert a.logits == pytest.approx(b.logits, abs=1e-3)
    assert a.maps == pytest.approx(b.maps, abs=1e-3)
    assert (a.explained_class == b.explained_class).all()


def test_a_module_gives_what_it_gives_when_called_image_by_image() -> None:
    toy = Toy()
    classes = np.arange(len(IMAGES)) % CLASSES
    with torch.no_grad():
        single = [toy(torch.from_numpy(IMAGES[i : i + 1]), torch.tensor([classes[i]])) for i in range(len(IMAGES))]
    expected = Predictions(*(np.concatenate([result[part].numpy() for result in single]) for part in range(3)))
    assert_close(predict(toy, IMAGES, classes), expected)


def test_a_file_explains_a_class_of_its_own_in_every_image(tmp_path: Path) -> None:
    toy = Toy()
    classes = np.random.default_rng(0).integers(0, CLASSES, len(IMAGES))
    model = model_file(toy, tmp_path / "toy.onnx")
    assert_close(predict(model, IMAGES, classes), predict(toy, IMAGES, classes))


def test_without_classes_each_explains_its_top_class(tmp_path: Path) -> None:
    toy = Toy()
    for model in (toy, model_file(toy, tmp_path / "toy.onnx")):
        answers = predict(model, IMAGES)
        assert (answers.explained_class == answers.logits.argmax(axis=1)).all()
        assert len(set(answers.explained_class)) > 1


def test_a_file_without_a_map_gives_none(tmp_path: Path) -> None:
    model = model_file(Toy(), tmp_path / "toy.onnx", without_map=True)
    answers = predict(model, IMAGES[:3], np.array([0, 1, 0]))
    assert answers.maps is None
    assert answers.logits.shape == (3, CLASSES)


def test_progress_counts_images_to_the_end(tmp_path: Path) -> None:
    for model in (Toy(), model_file(Toy(), tmp_path / "toy.onnx")):
        seen: list[int] = []
        predict(model, IMAGES, np.arange(len(IMAGES)) % 2, progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == len(IMAGES)
        assert max(np.diff([0, *seen])) <= 64


def test_a_module_is_evaluated_and_given_back_as_it_was() -> None:
    toy = Toy()
    toy.train()
    toy.head.eval()
    modes_inside: list[bool] = []
    toy.conv.register_forward_hook(lambda module, *_: modes_inside.append(module.training))
    predict(toy, IMAGES[:2])
    assert modes_inside == [False]
    assert (toy.training, toy.conv.training, toy.head.training) == (True, True, False)


def test_weights_are_counted_in_bytes() -> None:
    toy = Toy()
    parameters = 6 * 3 * 4 * 4 + 6 + 4 * 6 + 4
    assert weight_bytes(toy) == 4 * (parameters + 3 + 3)
