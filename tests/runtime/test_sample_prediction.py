"""A program predicts single samples and files, with the label, the map and its drawing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_streams import Collector, Frames

import kdedge_runtime
from kdedge_runtime import predict, predict_file
from kdedge_runtime.drawing.caption import Caption, append_caption
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.modalities.image_region import parse_image_regions
from kdedge_runtime.model import Model
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import StreamSettings


def test_sample_is_predicted_as_by_the_model(model: Model, red_spot: np.ndarray) -> None:
    prediction = predict(model, red_spot)
    outputs = model.predict(model.metadata.input.preprocess(red_spot)[None])
    assert (prediction.label, prediction.explained, prediction.age_ms) == ("red", "red", 0)
    assert prediction.score == pytest.approx(float(outputs.scores.max()))
    assert outputs.saliency_map is not None and prediction.saliency_map is not None
    np.testing.assert_array_equal(prediction.saliency_map, outputs.saliency_map[0])
    assert predict(model, red_spot, "blue").explained == "blue"
    with pytest.raises(UsageError, match="purple"):
        predict(model, red_spot, "purple")


def test_drawing_shows_the_image_next_to_its_overlay(model: Model, red_spot: np.ndarray) -> None:
    large = np.kron(red_spot, np.ones((5, 5, 1), np.uint8))
    prediction = predict(model, large)
    drawn, side = prediction.draw(caption=False), large.shape[1]
    assert drawn.shape == (side, 2 * side + 6, 3)
    np.testing.assert_array_equal(drawn[:, :side], large)
    assert (drawn[:, -side:] != large).any()
    np.testing.assert_array_equal(prediction.draw(0.0, caption=False)[:, -side:], large)
    assert (prediction.reasons(), prediction.other_contributions()) == ([], None)


def test_caption_is_below_the_drawing(model: Model, red_spot: np.ndarray) -> None:
    prediction = predict(model, red_spot)
    plain, captioned = prediction.draw(caption=False), prediction.draw()
    np.testing.assert_array_equal(captioned[: len(plain)], plain)
    expected = append_caption(Image.fromarray(plain), Caption("red", prediction.score_text, prediction.share))
    np.testing.assert_array_equal(captioned, np.asarray(expected))
    unknown = replace(prediction, unknown=True).draw()
    assert len(unknown) > len(captioned), "the nearest class has its own line"


def test_pillow_image_is_a_sample(model: Model, red_spot: np.ndarray) -> None:
    assert predict(model, Image.fromarray(red_spot)).label == "red"


def test_model_without_map_predicts(write_model: Callable[..., Path], red_spot: np.ndarray) -> None:
    prediction = predict(Model.load(write_model(method="none")), red_spot)
    assert (prediction.label, prediction.saliency_map, prediction.reasons()) == ("red", None, [])


def test_file_is_predicted(model: Model, photos: Path) -> None:
    (prediction,) = predict_file(model, photos / "3-blue.png")
    assert (prediction.label, prediction.frame.name) == ("blue", "3-blue.png")
    (other,) = predict_file(model, str(photos / "3-blue.png"), "red")
    assert (other.label, other.explained) == ("blue", "red")


def test_unusable_files_are_named(model: Model, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    for path in (tmp_path / "gone.png", photos, tmp_path / "broken.png"):
        with pytest.raises(SourceError, match=path.name):
            list(predict_file(model, path))


@pytest.mark.parametrize(
    "sample",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
    ids=["gray", "float", "RGBA", "empty"],
)
def test_array_that_is_no_image_is_rejected(model: Model, sample: np.ndarray) -> None:
    with pytest.raises(SourceError, match="uint8 RGB"):
        predict(model, sample)


def test_region_is_drawn_alone(model: Model, red_spot: np.ndarray) -> None:
    sink = Collector()
    regions = parse_image_regions(["left=0,0,0.5,1", "right=0.5,0,1,1"])
    frame = np.concatenate([red_spot, np.roll(red_spot, 1, axis=2)], axis=1)
    run(model, Frames(frame), [sink], StreamSettings(regions=regions))
    _, right = sink.predictions[0].by_region
    drawn = right.draw(0.0, caption=False)
    np.testing.assert_array_equal(drawn[:, -drawn.shape[0] :], drawn[:, : drawn.shape[0]])
    left = drawn[:, : drawn.shape[0]]
    assert left.reshape(-1, 3).max(axis=0).argmax() == right.sample.reshape(-1, 3).max(axis=0).argmax() == 1


def test_video_is_no_file_of_samples(model: Model, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (64, 64))
    for _ in range(3):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(UsageError, match="is a video"):
        list(predict_file(model, tmp_path / "film.avi"))


def test_misuse_is_explained(model: Model, model_path: Path, red_spot: np.ndarray, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n")
    prediction = predict(model, red_spot)
    with pytest.raises(SourceError, match="has no images"):
        predict_file(model, table)
    for call in (lambda: predict(str(model_path), red_spot), lambda: predict_file(str(model_path), table)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="Expected a loaded model"):
            call()
    for path in (str(table), table):
        with pytest.raises(UsageError, match="for a file: predict_file"):
            predict(model, path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="opacity 5"):
        prediction.draw(5)
    with pytest.raises(UsageError, match="-1 columns"):
        prediction.reasons(-1)
    with pytest.raises(UsageError, match="0 columns"):
        prediction.other_contributions(0)


def test_consoles_show_names_and_short_texts(model: Model, red_spot: np.ndarray) -> None:
    assert set(dir(kdedge_runtime)) == set(kdedge_runtime.__all__) >= {"Model", "predict"}
    assert repr(predict(model, red_spot)).startswith("Prediction('red', ") and "map (8, 8)" in repr(
        predict(model, red_spot)
    )
    assert repr(model) == f"Model({str(model.path)!r}, 3 labels, classify)"
