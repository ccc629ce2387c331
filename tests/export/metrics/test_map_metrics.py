"""Map quality: faithfulness, localization, sanity checks, robustness and baselines."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image, ImageFilter
from small_nets import NETS, SIDE, SPEC, randomised
from torch import Tensor, nn
from validate_toys import CLASSES, Toy, model_file
from validate_toys import SIDE as TOY_SIDE
from validate_toys import pictures as toy_pictures

from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.baseline_maps import center_maps, random_maps, upsampled
from kdedge_export.metrics.confidence import mean_interval
from kdedge_export.metrics.faithfulness import STEPS, areas, faithfulness
from kdedge_export.metrics.localization import localize, localize_all
from kdedge_export.metrics.resampling import area_mean
from kdedge_export.metrics.robustness import robustness
from kdedge_export.metrics.sanity import _head_weight, _similarity, sanity
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.modalities.image import IMAGE, edge_maps
from kdedge_export.saliency.explained_model import ExplainedModel, ForwardOutput
from kdedge_export.tasks.classification import CLASSIFICATION
from kdedge_export.torch_export import ExportableModel, wrap_for_export
from kdedge_export.validation import Gates
from kdedge_export.validation.gates import check_sanity
from kdedge_runtime import Model

IMAGES = toy_pictures(24)
EDGES = {"edges": area_mean(edge_maps(IMAGES), 8, 8)}


@pytest.fixture
def toy_file(tmp_path: Path) -> Model:
    return model_file(Toy(), tmp_path / "toy.onnx")


class TestBaselines:
    def test_random_maps_are_reproducible_and_distinct(self) -> None:
        maps = random_maps(2, 7, 7)
        assert (maps == random_maps(2, 7, 7)).all() and (maps[0] != maps[1]).all()

    def test_shift_moves_the_content_right_and_down(self) -> None:
        bump = np.exp(-((np.arange(8) - 3.0) ** 2) / 2)
        maps = np.outer(bump, bump)[None].astype(np.float32)
        row, column = np.unravel_index(upsampled(maps, 64, 64, (0.5, -0.25)).argmax(), (64, 64))
        assert (row + 0.5) / 8 == pytest.approx(3.5 - 0.25, abs=0.1)
        assert (column + 0.5) / 8 == pytest.approx(3.5 + 0.5, abs=0.1)
        there = upsampled(maps, 64, 64, (0.0, 0.0))
        assert upsampled(maps, 64, 64, (1e-9, 0.0))[0, 16:-16, 16:-16] == pytest.approx(
            there[0, 16:-16, 16:-16], abs=1e-4
        )

    def test_upsampled_constant_map_stays_constant(self) -> None:
        grown = upsampled(np.full((1, 7, 7), 0.1, dtype=np.float32), 224, 224)
        assert np.unique(grown).size == 1


class TestLocalisation:
    MASK = np.zeros((TOY_SIDE, TOY_SIDE), dtype=np.bool_)
    MASK[4:12, 8:24] = True

    def test_scores_match_a_loop(self) -> None:
        maps = np.random.default_rng(0).normal(size=(80, 8, 8)).astype(np.float32)
        masks = [np.random.default_rng(i).random((TOY_SIDE, TOY_SIDE)) < 0.3 for i in range(80)]
        hits, energies = localize(maps, masks)
        for number in range(80):
            large = np.asarray(
                Image.fromarray(maps[number]).resize((TOY_SIDE, TOY_SIDE), Image.Resampling.BICUBIC)
            ).astype(np.float64)
            row, column = divmod(int(large.argmax()), TOY_SIDE)
            assert hits[number] == masks[number][row, column]
            positive = np.where(large > 0, large, 0)
            assert energies[number] == pytest.approx(positive[masks[number]].sum() / positive.sum())

    @pytest.mark.parametrize(("height", "width"), [(12, 20), (20, 12)])
    def test_images_need_not_be_square(self, height: int, width: int) -> None:
        maps = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
        masks = [np.random.default_rng(i).random((height, width)) < 0.3 for i in range(3)]
        large = np.stack(
            [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)) for one in maps]
        )
        hits, energies = localize(maps, masks)
        np.testing.assert_array_equal(hits, map_similarity.pointing_game(large, np.stack(masks)))
        np.testing.assert_allclose(energies, map_similarity.energy_inside(large, np.stack(masks)), rtol=1e-5)

    def test_constant_map_scores_chance(self) -> None:
        flat = {"flat": np.full((24, 8, 8), 0.3, dtype=np.float32)}
        found = localize_all(flat, [self.MASK] * 24, {}, EDGES)
        assert found["flat"].pointing == pytest.approx(self.MASK.mean())
        assert found["flat"].energy_inside == pytest.approx(self.MASK.mean())

    def test_maps_are_shifted_by_their_displacement(self) -> None:
        maps = np.zeros((24, 8, 8), dtype=np.float32)
        maps[:, 4, 4] = 1
        mask = np.zeros((TOY_SIDE, TOY_SIDE), dtype=np.bool_)
        mask[14:17, 14:17] = True  # at the left and upper edge of the map position
        moved = {"moved": (-0.5, -0.5)}
        found = localize_all({"uncorrected": maps, "moved": maps}, [mask] * 24, moved, EDGES)
        assert found["uncorrected"].pointing == 0.0 and found["moved"].pointing == 1.0
        assert found["moved"].energy_inside > 1.5 * found["uncorrected"].energy_inside

    def test_map_without_evidence_scores_zero(self) -> None:
        nothing = {"none": np.full((24, 8, 8), -1.0, dtype=np.float32) * np.arange(1, 65).reshape(8, 8)}
        assert localize_all(nothing, [self.MASK] * 24, {}, EDGES)["none"].energy_inside == 0.0

    def test_each_score_has_the_interval_of_a_proportion(self) -> None:
        maps = np.random.default_rng(5).normal(size=(24, 8, 8)).astype(np.float32)
        hits, energies = localize(maps, [self.MASK] * 24)
        found = localize_all({"fp32": maps}, [self.MASK] * 24, {}, EDGES)["fp32"]
        assert (found.pointing, found.energy_inside) == pytest.approx((hits.mean(), energies.mean()))
        assert found.intervals == {
            "pointing": mean_interval(hits, (0.0, 1.0)),
            "energy_inside": mean_interval(energies, (0.0, 1.0)),
        }

    def test_baselines_are_listed_with_the_models(self) -> None:
        on_it = np.zeros((24, 8, 8), dtype=np.float32)
        on_it[:, 1:3, 2:6] = 1
        found = localize_all({"fp32": on_it}, [self.MASK] * 24, {}, EDGES)
        assert list(found) == ["fp32", "center", "random", "edges"]
        assert found["fp32"].pointing == 1.0 and found["center"].pointing == 0.0
        assert 0.0 <= found["random"].pointing < 0.5

    def test_center_map_points_at_the_middle(self) -> None:
        middle = np.zeros((1, 31, 31), dtype=np.bool_)
        middle[0, 15, 15] = True
        assert map_similarity.pointing_game(center_maps(1, 31, 31), middle) == 1.0


class TestFaithfulness:
    def test_areas_match_a_loop(self, toy_file: Model) -> None:
        image, saliency_map = IMAGES[0], np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
        large = np.asarray(Image.fromarray(saliency_map).resize((TOY_SIDE, TOY_SIDE), Image.Resampling.BICUBIC))
        ranked = sorted(range(TOY_SIDE**2), key=lambda pixel: -large[divmod(pixel, TOY_SIDE)])
        blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.1 * TOY_SIDE)))
        mean = np.round(np.array(toy_file.metadata.input.mean) * 255).astype(np.uint8)
        curves: tuple[list[float], list[float]] = ([], [])
        for step in range(STEPS + 1):
            deleted, inserted = image.copy(), blurred.copy()
            for pixel in ranked[: round(step * TOY_SIDE**2 / STEPS)]:
                deleted[divmod(pixel, TOY_SIDE)] = mean
                inserted[divmod(pixel, TOY_SIDE)] = image[divmod(pixel, TOY_SIDE)]
            for curve, picture in zip(curves, (deleted, inserted), strict=True):
                curve.append(float(toy_file.predict(picture[None]).scores[0, 2]))
        expected = tuple(np.trapezoid(curve, dx=1 / STEPS) for curve in curves)
        assert areas(toy_file, image, saliency_map, 2, IMAGE.smoothed) == pytest.approx(expected, abs=1e-6)

    def test_true_map_beats_random_maps_and_its_opposite_loses(self, toy_file: Model) -> None:
        """The toy's map is the exact contribution of each position to the logit."""
        images = toy_pictures(64)
        predictions = predict(toy_file, images)
        assert predictions.maps is not None
        progress: list[int] = []
        maps = {"fp32": predictions.maps, "against": -predictions.maps}
        edges = {"edges": area_mean(edge_maps(images), 8, 8)}
        found = faithfulness(
            toy_file, maps, images, predictions.explained_class, IMAGE.smoothed, edges, progress.append
        )
        assert list(found) == ["fp32", "against", "random", "edges"]
        assert found["fp32"].deletion < found["random"].deletion < found["against"].deletion
        assert found["fp32"].insertion > found["random"].insertion > found["against"].insertion
        ends = found["fp32"].intervals["margin"]
        assert ends is not None and ends.low > 0
        assert found["random"].margin == 0.0
        assert progress == list(range(2, 2 * 4 * len(images) + 1, 2))

    def test_constant_map_ranks_pixels_at_random(self, toy_file: Model) -> None:
        flat, noise = np.zeros((8, 8), dtype=np.float32), np.random.default_rng(0).normal(size=(TOY_SIDE, TOY_SIDE))
        own = areas(toy_file, IMAGES[0], flat, 1, IMAGE.smoothed)
        by_chance = [
            areas(toy_file, IMAGES[0], np.roll(noise, i).astype(np.float32), 1, IMAGE.smoothed) for i in range(30)
        ]
        for area, others in zip(own, zip(*by_chance, strict=True), strict=True):
            assert abs(area - np.mean(others)) < 4 * np.std(others)
        from_the_top = np.arange(64, 0, -1).reshape(8, 8).astype(np.float32)
        assert own != pytest.approx(areas(toy_file, IMAGES[0], from_the_top, 1, IMAGE.smoothed), abs=1e-4)


MakeMaps = Callable[[Tensor, Tensor], Tensor]
ALONG = torch.linspace(-1, 1, 7)
BELL = torch.exp(-2 * (ALONG[:, None] ** 2 + ALONG**2))
IMAGES_OF_SPEC = np.random.default_rng(0).integers(0, 256, (64, SPEC.height, SPEC.width, 3), dtype=np.uint8)


class Drawn(ExplainedModel):
    """Classifier with synthetic maps, computed from a class's logit and noise that differs by image."""

    method, target_layer, how = "gradcam", None, "drawn"

    def __init__(self, maps: MakeMaps) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), Pooled(), nn.Linear(16, 10)))
        self._maps = maps

    def forward(self, x: Tensor) -> ForwardOutput:
        logits = self.model(x)
        return ForwardOutput(logits, (x,), logits)

    def class_maps(self, output: ForwardOutput, classes: Tensor) -> Tensor:
        noise = torch.randn(*classes.shape, 7, 7)
        return self._maps(output.logits.gather(1, classes)[:, :, None, None], noise) + 0 * noise


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class TestSanity:
    def test_maps_of_a_real_network_pass_the_sanity_checks(self, pictures: object) -> None:
        torch.manual_seed(0)
        student = wrap_for_export(randomised(NETS["linear"]()), SPEC)
        weights = {name: value.clone() for name, value in student.state_dict().items()}
        images = pictures(12, 0)  # type: ignore[operator]
        assert images.shape[1] == SIDE
        rows = sanity({"student": student}, images, predict(student, images).explained_class)
        assert [row.test for row in rows] == ["class", "sample", "head"]
        assert all(check_sanity(row, len(images), "gradcam", Gates()).passed for row in rows)
        # The head is restored.
        assert all((value == weights[name]).all() for name, value in student.state_dict().items())

    def test_random_head_map_matches_captum(self, pictures: object) -> None:
        """Compare the mean correlation with Grad-CAM of a network whose head was replaced by hand."""
        torch.manual_seed(0)
        network = randomised(NETS["linear"]())
        student = wrap_for_export(network, SPEC)
        images = pictures(6, 0)  # type: ignore[operator]
        before = predict(student, images)
        (row,) = (row for row in sanity({"student": student}, images, before.explained_class) if row.test == "head")
        head = student.explained.head
        parameter = network.get_parameter(head.layers[-1].weight)  # type: ignore[union-attr]
        own, scores = parameter.detach().clone(), []
        for seed in range(5):
            fresh = torch.randn(own.shape, generator=torch.Generator().manual_seed(seed)) * own.std()
            with torch.no_grad():
                parameter.copy_(fresh)
            explainer = LayerGradCam(network.requires_grad_(True), network.get_submodule(head.target_layer))
            x = student.front_end(torch.from_numpy(images)).requires_grad_(True)
            maps = explainer.attribute(x, target=torch.from_numpy(before.explained_class), relu_attributions=False)
            after = maps.detach().numpy()[:, 0]
            scores.append([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(before.maps, after, strict=True)])
        assert row.pearson == pytest.approx(float(np.mean(scores)), abs=1e-4)

    @pytest.mark.parametrize(
        ("maps", "refused"),
        [
            (lambda logits, noise: BELL * torch.ones_like(logits), {"class", "sample", "head"}),
            (lambda logits, noise: BELL * logits.abs(), {"class", "sample", "head"}),
            (lambda logits, noise: BELL + 0.02 * noise, {"class", "sample", "head"}),
            # Maps of logits with different signs differ in sign, but maps of other images lie in the same place.
            (lambda logits, noise: BELL * logits, {"sample"}),
        ],
        ids=["fixed", "rescaled", "two percent of noise", "times the logit"],
    )
    def test_fixed_central_spot_fails(self, maps: MakeMaps, refused: set[str]) -> None:
        student = ExportableModel(Drawn(maps), SPEC).eval()
        rows = sanity({"student": student}, IMAGES_OF_SPEC, predict(student, IMAGES_OF_SPEC).explained_class)
        checks = {row.test: check_sanity(row, len(IMAGES_OF_SPEC), "gradcam", Gates()) for row in rows}
        assert {test for test, check in checks.items() if not check.passed} == refused

    def test_map_may_be_the_negative_of_the_other_class_map(self) -> None:
        sign = np.array([1.0, -1.0])[:, None, None] * np.random.default_rng(0).normal(size=(1, 4, 4))
        assert _similarity("class", sign, sign[::-1]).tolist() == [0.0, 0.0]
        assert _similarity("class", sign, 3 * sign) == pytest.approx([1.0, 1.0])
        assert _similarity("sample", sign, sign[::-1]) == pytest.approx([1.0, 1.0])

    def test_constant_or_non_finite_maps_count_as_unchanged(self) -> None:
        flat, other = np.zeros((1, 2, 2)), np.arange(4.0).reshape(1, 2, 2)
        assert _similarity("class", flat, flat + 1).tolist() == [1.0]
        assert _similarity("class", flat, other).tolist() == [0.0] == _similarity("head", other, flat).tolist()
        assert _similarity("class", flat, other * np.nan).tolist() == [1.0]

    def test_head_is_the_layer_that_produces_the_logits(self) -> None:
        class HeadFirst(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.head = nn.Linear(10, 10)
                self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 10, 3, 1, 1), nn.ReLU())

            def forward(self, x: Tensor) -> Tensor:
                return self.head(self.body(x).mean((2, 3)))

        network = HeadFirst()
        for method in ("gradcam", "input-gradient"):  # closed form, and tracing
            assert _head_weight(wrap_for_export(network, SPEC, method), IMAGES_OF_SPEC[:1], 10) is network.head.weight

    @pytest.mark.parametrize(
        ("broken", "caught"),
        [({"constant_map": True}, {"class", "sample"}), ({}, set())],
        ids=["constant", "intact"],
    )
    def test_file_without_a_module_is_checked_for_class_and_image(
        self, tmp_path: Path, broken: dict[str, bool], caught: set[str]
    ) -> None:
        model = model_file(Toy(), tmp_path / "toy.onnx", **broken)  # type: ignore[arg-type]
        rows = sanity({"fp32": model}, IMAGES, np.arange(len(IMAGES)) % CLASSES)
        assert {row.test for row in rows if row.map_similarity > 0.98} == caught
        assert {row.test for row in rows} == {"class", "sample"}


class TestRobustness:
    def test_files_are_compared_with_the_student_and_their_clean_results(self, tmp_path: Path) -> None:
        toy = Toy()
        files = {
            "fp32": model_file(toy, tmp_path / "toy.onnx"),
            "int8": model_file(toy, tmp_path / "small.onnx", noise=0.2),
        }
        targets = predict(toy, IMAGES).logits.argmax(axis=1)
        rows = robustness(toy, files, IMAGES, targets, IMAGE.corruptions, CLASSIFICATION)  # type: ignore[arg-type]
        assert [row.corruption for row in rows[::2]] == list(IMAGE.corruptions)
        for row in rows:
            corrupt = IMAGE.corruptions[row.corruption]
            pictures = np.stack([corrupt(image, number) for number, image in enumerate(IMAGES)])
            model = files[row.model]
            predictions = model.predict(pictures).logits.argmax(axis=1)
            assert row.accuracy == pytest.approx((predictions == targets).mean())
            assert row.agreement == pytest.approx((predictions == predict(toy, pictures).logits.argmax(axis=1)).mean())
            assert row.prediction_kept == pytest.approx(
                (predictions == model.predict(IMAGES).logits.argmax(axis=1)).mean()
            )
        assert all(row.map_pearson == pytest.approx(1.0) for row in rows if row.model == "fp32")
        assert any(row.map_kept is not None and row.map_kept < 0.99 for row in rows)
