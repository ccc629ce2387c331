"""Rendered scenes: exact masks, and classes that depend on shape only."""

from dataclasses import replace

import numpy as np
import pytest

from kdedge_export.scenes.backdrops import backdrop
from kdedge_export.scenes.icons import LABELS, Part, draw_icon
from kdedge_export.scenes.painting import Palette, Pose, paint
from kdedge_export.scenes.scene import random_palette, random_pose, render_scene
from kdedge_runtime.errors import UsageError

SIZES = [32, 64, (64, 128), (120, 90), (360, 640)]


HEIGHT, WIDTH = 96, 128


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("seed", range(6))
class TestMask:
    def drawn(self, label: str, seed: int, *, fixed_colors: bool = True) -> tuple[tuple[Part, ...], Pose, Palette]:
        rng = np.random.default_rng(seed)
        parts = draw_icon(label, rng)
        if not fixed_colors:  # eyes and highlights are always white or dark
            parts = tuple(part for part in parts if part.paint not in ("light", "dark"))
        pose = random_pose(rng, parts, HEIGHT, WIDTH)
        return parts, pose, random_palette(rng, backdrop(rng, HEIGHT, WIDTH))

    def coverage(self, parts: tuple[Part, ...], pose: Pose, palette: Palette) -> np.ndarray:
        """Return the share of each pixel covered by the object, measured on a white background."""
        black, white = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        paint(black, parts, pose, palette)
        paint(white, parts, pose, palette)
        share: np.ndarray = 1 - (white.astype(float) - black).mean(axis=2) / 255
        return share

    def test_mask_contains_pixels_covered_at_least_half(self, label: str, seed: int) -> None:
        drawing = self.drawn(label, seed)
        share = self.coverage(*drawing)
        mask = paint(np.zeros((HEIGHT, WIDTH, 3), np.uint8), *drawing)
        decided = np.abs(share - 0.5) > 0.01
        np.testing.assert_array_equal(mask[decided], share[decided] > 0.5)
        assert decided.mean() > 0.98
        assert mask.sum() == pytest.approx(share.sum(), rel=0.04)

    def test_color_change_affects_only_the_object(self, label: str, seed: int) -> None:
        parts, pose, palette = self.drawn(label, seed, fixed_colors=False)
        ground = backdrop(np.random.default_rng(seed), HEIGHT, WIDTH)
        images = []
        for color in ((250, 120, 20), (20, 40, 220)):
            painted = replace(palette, body=color, accent=color, outline=palette.outline and color)
            images.append(ground.copy())
            mask = paint(images[-1], parts, pose, painted)
        changed = np.abs(images[0].astype(int) - images[1]).max(axis=2) > 40
        assert changed[mask].all()
        untouched = self.coverage(parts, pose, palette) == 0
        assert untouched.mean() > 0.5
        for image in images:
            np.testing.assert_array_equal(image[untouched], ground[untouched])


class TestScene:
    @pytest.mark.parametrize("size", SIZES)
    def test_shape_and_coverage_are_within_limits(self, size: int | tuple[int, int]) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        for seed in range(64 if height < 200 else 16):
            label = LABELS[seed % len(LABELS)]
            scene = render_scene(label, np.random.default_rng(seed), size)
            assert scene.label == label
            assert scene.image.shape == (height, width, 3)
            assert scene.image.dtype == np.uint8
            assert scene.mask.shape == (height, width)
            assert scene.mask.dtype == bool
            assert 0.08 <= scene.mask.mean() <= 0.35

    def test_scenes_depend_only_on_the_seed(self) -> None:
        first, again, other = (render_scene("fish", np.random.default_rng(seed)) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.mask, again.mask)
        assert (first.image != other.image).mean() > 0.5

    def test_object_position_is_spread_over_the_image(self) -> None:
        centers = np.array(
            [
                np.argwhere(render_scene(LABELS[seed % 8], np.random.default_rng(seed)).mask).mean(axis=0)
                for seed in range(200)
            ]
        )
        # A map fixed at the center must often be wrong.
        assert (np.abs(centers - 31.5).max(axis=1) > 8).mean() > 0.4
        np.testing.assert_allclose(centers.mean(axis=0), 31.5, atol=3)

    def test_color_does_not_predict_the_class(self) -> None:
        """Check that a nearest-mean-color classifier is at chance level."""
        means = np.array(
            [
                [
                    scene.image[scene.mask].mean(axis=0)
                    for scene in (render_scene(label, np.random.default_rng([index, half])) for index in range(40))
                ]
                for half in (0, 1)
                for label in LABELS
            ]
        ).reshape(2, len(LABELS), 40, 3)
        centroids = means[0].mean(axis=1)
        failed_logins = np.linalg.norm(means[1][:, :, None] - centroids, axis=-1).argmin(axis=-1)
        accuracy = (failed_logins == np.arange(len(LABELS))[:, None]).mean()
        assert accuracy < 0.25  # chance is 0.125

    def test_unknown_class_error_lists_the_classes(self) -> None:
        with pytest.raises(UsageError, match=r"no drawing of 'unicorn'.*bottle, fish"):
            render_scene("unicorn", np.random.default_rng(0))

    def test_tiny_image_is_rejected(self) -> None:
        with pytest.raises(UsageError, match="32 px"):
            render_scene("fish", np.random.default_rng(0), (200, 31))


def test_labels_are_sorted_and_unique() -> None:
    assert list(LABELS) == sorted(set(LABELS))


def test_drawings_vary_within_their_units() -> None:
    for label in LABELS:
        drawings = [draw_icon(label, np.random.default_rng(seed)) for seed in range(20)]
        points = [np.concatenate([part.points for part in parts]) for parts in drawings]
        assert len({array.tobytes() for array in points}) == 20
        assert all(np.hypot(*array.T).max() < 1.12 for array in points)
