"""Explained image files: image next to overlay, one file each."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.explainers.sample_files import explain_samples
from kdedge_runtime.model import Model

GAP = 6


def test_output_shows_image_next_to_overlay(model: Model, tmp_path: Path, red_spot: np.ndarray) -> None:
    picture = np.kron(red_spot, np.ones((5, 5, 1), np.uint8))
    Image.fromarray(picture).save(tmp_path / "spot.png")
    (done,) = explain_samples(model, [tmp_path / "spot.png"], tmp_path / "out")
    assert done.written == tmp_path / "out" / "spot.png"
    assert (done.prediction.label, done.prediction.explained) == ("red", "red")
    drawn = np.asarray(Image.open(done.written)).astype(int)
    assert drawn.shape[1] == 2 * 320 + GAP
    np.testing.assert_array_equal(drawn[:320, :320], picture)
    assert drawn[320:].max() > 200, "caption below"
    change = np.abs(drawn[:320, 320 + GAP :] - picture).sum(axis=2)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert 12 * 5 - 40 <= row <= 28 * 5 + 40
    assert 36 * 5 - 40 <= column <= 52 * 5 + 40


def test_requested_class_is_explained(model: Model, photos: Path, tmp_path: Path) -> None:
    done = explain_samples(model, [photos], tmp_path / "out", class_name="blue")
    assert [item.prediction.label for item in done] == ["red", "green", "blue"]
    assert {item.prediction.explained for item in done} == {"blue"}
    with pytest.raises(UsageError, match="no class 'purple'"):
        explain_samples(model, [photos], tmp_path / "out", class_name="purple")
    with pytest.raises(UsageError, match=r"no class 'gren'\. Did you mean green\?"):
        explain_samples(model, [photos], tmp_path / "out", class_name="gren")


def test_equal_names_get_numbered_outputs(model: Model, tmp_path: Path) -> None:
    colors = {"a/1.png": "red", "b/1.png": "lime", "b/1.bmp": "blue"}
    for name, color in colors.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (300, 300), color).save(tmp_path / name)
    done = explain_samples(model, [tmp_path / name for name in colors], tmp_path / "out")
    assert [item.written.name for item in done] == ["1.png", "1-2.png", "1-3.png"]
    for item, color in zip(done, colors.values(), strict=True):
        assert Image.open(item.written).getpixel((5, 5)) == Image.new("RGB", (1, 1), color).getpixel((0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="arbitrary file name bytes need Linux")
def test_non_utf8_name_is_escaped(model: Model, photos: Path, tmp_path: Path) -> None:
    odd = photos / os.fsdecode(b"caf\xe9.png")
    (photos / "1-red.png").rename(odd)
    (done,) = explain_samples(model, [odd], tmp_path / "out")
    assert (done.written.name, done.prediction.frame.name) == ("caf\\xe9.png", "caf\\xe9.png")


def test_input_image_is_never_overwritten(model: Model, photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.iterdir()}
    with pytest.raises(UsageError, match=r"1-red\.png is an input file.*-o DIR"):
        explain_samples(model, [photos / "1-red.png"], photos)
    assert {path: path.read_bytes() for path in photos.iterdir()} == before


def test_unreadable_image_is_named_and_others_are_written(model: Model, photos: Path, tmp_path: Path) -> None:
    (photos / "2-green.png").write_bytes(b"broken")
    with pytest.raises(SourceError, match="1 of 3 samples"):
        explain_samples(model, [photos], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1-red.png", "3-blue.png"]


def test_single_unreadable_image_error_is_not_wrapped(model: Model, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^\S*gone\.png does not exist"):
        explain_samples(model, [tmp_path / "gone.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_images_is_an_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images"):
        explain_samples(model, [tmp_path], tmp_path / "out")


@pytest.mark.parametrize(("shape", "drawn"), [((20, 30), (240, 360)), ((2000, 3000), (853, 1280))])
def test_image_size_is_adapted_for_display(
    model: Model, tmp_path: Path, shape: tuple[int, int], drawn: tuple[int, int]
) -> None:
    Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(tmp_path / "a.png")
    (done,) = explain_samples(model, [tmp_path / "a.png"], tmp_path / "out")
    height, width = np.asarray(Image.open(done.written)).shape[:2]
    assert width == 2 * drawn[1] + GAP
    assert drawn[0] < height < 1.4 * drawn[0]


def test_model_without_map_uses_black_box_explainer(
    write_model: Callable[..., Path], tmp_path: Path, red_spot: np.ndarray
) -> None:
    Image.fromarray(np.kron(red_spot, np.ones((5, 5, 1), np.uint8))).save(tmp_path / "spot.png")
    mapless = Model.load(write_model(method="none"), threads=1)
    explainer = make_explainer(mapless, "occlusion")
    steps: list[tuple[str, int, int]] = []
    (plain,) = explain_samples(mapless, [tmp_path / "spot.png"], tmp_path / "plain")
    (done,) = explain_samples(
        mapless,
        [tmp_path / "spot.png"],
        tmp_path / "out",
        explainer=explainer,
        progress=lambda *step: steps.append(step),
    )
    assert (plain.prediction.heat, plain.estimate) == (None, None)
    assert done.prediction.explained == "red"
    assert done.prediction.heat is not None
    assert (done.prediction.heat.cx, done.prediction.heat.cy) == pytest.approx((44 / 64, 20 / 64), abs=0.06)
    assert done.estimate is not None
    np.testing.assert_array_equal(done.prediction.saliency_map, done.estimate.map)
    assert steps[-2:] == [("explaining the sample", 144, 144), ("explaining samples", 1, 1)]
    (blue,) = explain_samples(
        mapless, [tmp_path / "spot.png"], tmp_path / "blue", class_name="blue", explainer=explainer
    )
    assert (blue.prediction.label, blue.prediction.explained) == ("red", "blue")
    with pytest.raises(UsageError, match="use a --method that needs no map"):
        explain_samples(mapless, [tmp_path / "spot.png"], tmp_path / "none", class_name="blue")


def test_explainer_replaces_the_map_of_the_file(model: Model, photos: Path, tmp_path: Path) -> None:
    own = explain_samples(model, [photos], tmp_path / "own")
    estimated = explain_samples(
        model, [photos], tmp_path / "estimated", explainer=make_explainer(model, "lime", segments=16)
    )
    for first, second in zip(own, estimated, strict=True):
        assert first.prediction.ranking == second.prediction.ranking
        assert first.prediction.saliency_map is not None and second.prediction.saliency_map is not None
        assert (first.prediction.saliency_map.shape, second.prediction.saliency_map.shape) == ((8, 8), (64, 64))
        assert first.written.read_bytes() != second.written.read_bytes()


def test_limit_keeps_the_first_samples(model: Model, photos: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    done = explain_samples(
        model, [photos, photos], tmp_path / "out", limit=4, progress=lambda *step: steps.append(step)
    )
    assert [item.file.name for item in done] == ["1-red.png", "2-green.png", "3-blue.png", "1-red.png"]
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert steps[0] == ("explaining samples", 1, 3) and steps[-1] == ("explaining samples", 4, 4)
