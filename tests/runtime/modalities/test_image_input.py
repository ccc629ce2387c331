"""Preprocessing geometry, compared with torchvision's Resize and CenterCrop in exact arithmetic."""

from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime.drawing.overlay_renderer import OverlayRenderer
from kdedge_runtime.drawing.reference_image import draw_reference_image
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.explainers.superpixels import superpixels
from kdedge_runtime.modalities import parse_input
from kdedge_runtime.modalities.image import ImageInput, require_image

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def _exact_box(height: int, width: int, side: int, crop_fraction: Fraction) -> tuple[Fraction, ...]:
    """Scale the shorter side to `side / crop_fraction`, center-crop `side` × `side`, and map the box back."""
    scale = side / crop_fraction / min(height, width)
    cut_height, cut_width = side / scale, side / scale
    return (width - cut_width) / 2, (height - cut_height) / 2, (width + cut_width) / 2, (height + cut_height) / 2


@pytest.mark.parametrize("shape", [(360, 640), (640, 360), (224, 224), (31, 500), (3000, 4001)])
@pytest.mark.parametrize("crop_fraction", [Fraction(1), Fraction(7, 8)])
def test_crop_matches_resize_and_center_crop(shape: tuple[int, int], crop_fraction: Fraction) -> None:
    spec = ImageInput(224, 224, crop_fraction=float(crop_fraction), **PLAIN)
    expected = [float(edge) for edge in _exact_box(*shape, 224, crop_fraction)]
    assert spec.visible_box(*shape) == pytest.approx(expected)


# Sizes at which a float box would exceed the image, which Pillow rejects.
@pytest.mark.parametrize(
    ("shape", "model"), [((2890, 904), (299, 299)), ((452, 2512), (299, 299)), ((3713, 2665), (97, 61))]
)
def test_crop_box_stays_inside_image(shape: tuple[int, int], model: tuple[int, int]) -> None:
    spec = ImageInput(*model, **PLAIN)
    left, top, right, bottom = spec.visible_box(*shape)
    assert 0 <= left < right <= shape[1]
    assert 0 <= top < bottom <= shape[0]
    assert spec.preprocess(np.zeros((*shape, 3), np.uint8)).shape == (*model, 3)


def test_crop_box_has_model_aspect_ratio() -> None:
    left, top, right, bottom = ImageInput(100, 200, **PLAIN).visible_box(400, 400)
    assert (left, top, right, bottom) == (0, 100, 400, 300)


def test_squash_box_is_whole_image() -> None:
    assert ImageInput(64, 64, resize="squash", **PLAIN).visible_box(360, 640) == (0, 0, 640, 360)


class TestLetterbox:
    @pytest.mark.parametrize(
        ("shape", "inner"),
        [
            ((360, 640), (14, 0, 36, 64)),  # top, left, height, width
            ((640, 360), (0, 14, 64, 36)),
            ((64, 64), (0, 0, 64, 64)),
            ((10, 30), (21, 0, 21, 64)),
            ((3, 1000), (31, 0, 1, 64)),
            ((1, 1), (0, 0, 64, 64)),
        ],
    )
    def test_image_is_centered_between_black_borders(
        self, shape: tuple[int, int], inner: tuple[int, int, int, int]
    ) -> None:
        spec = ImageInput(64, 64, resize="letterbox", **PLAIN)
        fitted = spec.preprocess(np.full((*shape, 3), 200, np.uint8))
        rows, columns = (np.nonzero(fitted.any((axis, 2)))[0] for axis in (1, 0))
        top, left, height, width = inner
        assert (rows[0], columns[0], len(rows), len(columns)) == (top, left, height, width)
        assert (fitted[top : top + height, left : left + width] == 200).all()

    def test_pixels_match_pillow(self) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
        fitted = ImageInput(32, 64, resize="letterbox", interpolation="bicubic", **PLAIN).preprocess(picture)
        expected = np.asarray(Image.fromarray(picture).resize((57, 32), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(fitted[:, 3:60], expected)
        assert not fitted[:, :3].any() and not fitted[:, 60:].any()

    @pytest.mark.parametrize("shape", [(360, 640), (640, 361), (3, 1000)])
    def test_visible_box_includes_borders(self, shape: tuple[int, int]) -> None:
        """Input pixels at the image edge map to that edge."""
        spec = ImageInput(64, 64, resize="letterbox", **PLAIN)
        left, top, right, bottom = spec.visible_box(*shape)
        fitted = spec.preprocess(np.full((*shape, 3), 200, np.uint8))
        rows, columns = (np.nonzero(fitted.any((axis, 2)))[0] for axis in (1, 0))
        across, down = (right - left) / 64, (bottom - top) / 64
        assert left + columns[0] * across == pytest.approx(0, abs=1e-9)
        assert left + (columns[-1] + 1) * across == pytest.approx(shape[1])
        assert top + rows[0] * down == pytest.approx(0, abs=1e-9)
        assert top + (rows[-1] + 1) * down == pytest.approx(shape[0])

    def test_odd_border_is_wider_on_the_right(self) -> None:
        spec = ImageInput(64, 64, resize="letterbox", **PLAIN)
        # 37 image columns and 27 black columns, 13 of them on the left.
        left, top, right, bottom = spec.visible_box(640, 370)
        assert (left, right, top, bottom) == pytest.approx((-130, 510, 0, 640))
        left, top, right, bottom = spec.visible_box(370, 640)
        assert (left, right, top, bottom) == pytest.approx((0, 640, -130, 510))

    @pytest.mark.parametrize(("shape", "columns"), [((1000, 3), 1), ((3, 1000), 64)])
    def test_sides_have_at_least_one_pixel(self, shape: tuple[int, int], columns: int) -> None:
        fitted = ImageInput(64, 64, resize="letterbox", **PLAIN).preprocess(np.full((*shape, 3), 200, np.uint8))
        assert fitted.dtype == np.uint8
        assert fitted.any((0, 2)).sum() == columns and fitted.any((1, 2)).sum() == 65 - columns


def _triangle_resampled(line: np.ndarray, start: float, stop: float, count: int) -> np.ndarray:
    """Resample one line with an antialiased bilinear filter, by definition in float64."""
    scale = (stop - start) / count
    reach = max(scale, 1.0)
    centers = start + (np.arange(count) + 0.5) * scale
    distance = np.abs((np.arange(len(line)) + 0.5)[None] - centers[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    return (weights / weights.sum(axis=1, keepdims=True)) @ line


@pytest.mark.parametrize("shape", [(90, 160), (160, 90)])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_fit_is_antialiased_bilinear_resampling_of_the_visible_box(resize: str, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    spec = ImageInput(32, 32, resize=resize, **PLAIN)
    left, top, right, bottom = spec.visible_box(*shape)
    # The filter extends beyond the crop, as in resizing the whole image before cropping.
    columns = np.apply_along_axis(_triangle_resampled, 1, picture.astype(np.float64), left, right, 32)
    expected = np.apply_along_axis(_triangle_resampled, 0, columns, top, bottom, 32)
    assert np.abs(spec.preprocess(picture).astype(np.float64) - expected).max() <= 1.0


@pytest.mark.parametrize("shape", [(278, 19), (261, 35), (90, 160)])
@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_result_is_independent_of_pillow_version(shape: tuple[int, int], resize: str) -> None:
    """Horizontal pass first, then vertical, each rounded to 8 bits."""
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    fitted = ImageInput(64, 48, resize=resize, interpolation="bicubic", **PLAIN).preprocess(picture)
    fitted = fitted[fitted.any((1, 2))][:, fitted.any((0, 2))]
    height, width = fitted.shape[:2]
    across = Image.fromarray(picture).resize((width, shape[0]), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(fitted, across.resize((width, height), Image.Resampling.BICUBIC))


def test_image_of_input_size_is_unchanged() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert ImageInput(32, 32, **PLAIN).preprocess(picture) is picture
    assert not np.array_equal(ImageInput(32, 32, crop_fraction=0.5, **PLAIN).preprocess(picture), picture)


def test_metadata_interpolation_is_used() -> None:
    """Bicubic overshoots at an edge; bilinear does not."""
    picture = np.full((8, 8, 3), 60, np.uint8)
    picture[:, 4:] = 200
    spec = ImageInput(64, 64, (0.0,) * 3, (1.0,) * 3, resize="squash")
    bilinear = spec.preprocess(picture)
    bicubic = replace(spec, interpolation="bicubic").preprocess(picture)
    assert (bilinear.min(), bilinear.max()) == (60, 200)
    assert bicubic.min() < 55
    assert bicubic.max() > 205


class TestMask:
    SAMPLE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)

    def test_hidden_pixels_take_the_mean_color(self) -> None:
        spec = ImageInput(5, 7, (0.2, 0.4, 0.6), (1.0, 1.0, 1.0))
        keep = np.random.default_rng(1).integers(0, 2, (5, 7)).astype(np.float32)
        expected = np.where(keep[..., None] == 1, self.SAMPLE, np.array([51, 102, 153], np.uint8))
        masked = spec.mask(self.SAMPLE, keep)
        assert masked.dtype == np.uint8
        np.testing.assert_array_equal(masked, expected)

    def test_partly_hidden_pixels_are_blended_with_the_fill(self) -> None:
        fill = np.full((5, 7, 3), 200, np.uint8)
        masked = ImageInput(5, 7, **PLAIN).mask(self.SAMPLE, np.full((5, 7), 0.25, np.float32), fill)
        np.testing.assert_array_equal(masked, np.rint(0.25 * self.SAMPLE.astype(float) + 150).astype(np.uint8))


def test_reference_sample_is_the_drawn_image() -> None:
    sample = ImageInput(24, 40, **PLAIN).reference_sample(3)
    np.testing.assert_array_equal(sample, draw_reference_image(3, 24, 40))
    assert sample.shape == (24, 40, 3)


def test_segments_are_superpixels(red_spot: np.ndarray) -> None:
    parts = ImageInput(64, 64, **PLAIN).segments(red_spot, 12)
    np.testing.assert_array_equal(parts, superpixels(red_spot, 12))


def test_renderer_draws_overlays() -> None:
    spec = ImageInput(64, 64, **PLAIN)
    renderer = spec.renderer(moving=True, fps=12.0)
    assert isinstance(renderer, OverlayRenderer)
    assert (renderer._spec, renderer._scales._moving, renderer._scales._fps) == (spec, True, 12.0)


def test_images_have_no_windows(photos: Path) -> None:
    with pytest.raises(UsageError, match="--hop"):
        ImageInput(64, 64, **PLAIN).open_source(str(photos), hop_s=0.5)


def test_source_of_a_folder_is_opened(photos: Path) -> None:
    spec = ImageInput(64, 64, **PLAIN)
    with spec.open_source(str(photos)) as source:
        assert [Path(frame.name).name for frame in source] == ["1-red.png", "2-green.png", "3-blue.png"]
    with spec.open_source(str(photos), loop=True) as source:
        assert len([frame for _, frame in zip(range(7), source, strict=False)]) == 7


def test_image_input_is_required() -> None:
    spec = ImageInput(64, 64, **PLAIN)
    assert require_image(spec, "a model") is spec


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"width": 8193},
        {"height": 64.0},
        {"mean": (0.0, 0.0)},
        {"std": (1.0, 1.0)},
        {"mean": (0.0, float("nan"), 0.0)},
        {"crop_fraction": 0},
        {"crop_fraction": 1.01},
        {"resize": "stretch"},
        {"interpolation": "nearest"},
    ],
    ids=str,
)
def test_invalid_metadata_is_rejected(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"invalid input|unknown resize rule"):
        ImageInput.from_json(asdict(ImageInput(64, 64, **PLAIN)) | change)


def test_integer_beyond_floats_is_invalid() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_input(asdict(ImageInput(64, 64, **PLAIN)) | {"mean": (10**400, 0, 0)})


@pytest.mark.parametrize(
    "change", [{"height": 1}, {"width": 8192}, {"crop_fraction": 0.01}, {"crop_fraction": 1}], ids=str
)
def test_limits_of_the_metadata_are_valid(change: dict[str, object]) -> None:
    spec = ImageInput.from_json(asdict(ImageInput(64, 64, **PLAIN)) | change)
    assert {name: getattr(spec, name) for name in change} == change


def test_tables_and_sounds_are_no_images_but_ts_may_be_a_video(tmp_path: Path) -> None:
    spec = ImageInput(8, 8, (0.5,) * 3, (0.25,) * 3)
    for name in ("rows.csv", "word.opus", "notes.txt"):
        (tmp_path / name).touch()
        with pytest.raises(SourceError, match=name):
            spec.check_sample_file(tmp_path / name)
    (tmp_path / "film.ts").touch()
    spec.check_sample_file(tmp_path / "film.ts")
