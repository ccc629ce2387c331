"""Black-box explainers of model files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.errors import UsageError
from kdedge_runtime.explainers import make_explainer, methods_for
from kdedge_runtime.explainers.image_grid import enlarge
from kdedge_runtime.explainers.registry import EXPLAINERS
from kdedge_runtime.explainers.target_activations import Activations
from kdedge_runtime.model import Model
from kdedge_runtime.saliency_methods import methods_of
from kdedge_runtime.server.live_view import Controls
from kdedge_runtime.stream.settings import LiveSettings


def test_black_box_methods_are_the_listed_ones() -> None:
    assert tuple(EXPLAINERS) == methods_of("perturbation")


def test_file_without_a_map_has_no_method_that_takes_activations(write_model: Callable[..., Path]) -> None:
    with_map, mapless = (Model.load(write_model(method=method), threads=1) for method in ("cam", "none"))
    assert methods_for(with_map) == tuple(EXPLAINERS)
    assert set(EXPLAINERS) - set(methods_for(mapless)) == {"scorecam"}


def test_score_cam_does_not_explain_similarities(embedding_model: Model, red_spot: np.ndarray) -> None:
    """Check the methods of an embedding model, and that those left explain each class differently."""
    methods = methods_for(embedding_model)
    assert set(EXPLAINERS) - set(methods) == {"scorecam"} and embedding_model.has_map

    def activations_of(model: Model) -> Activations:
        raise AssertionError("it is refused before the file is opened again")

    with pytest.raises(UsageError, match=r"scorecam .*similarities.* Use occlusion, rise, lime, shap"):
        make_explainer(embedding_model, "scorecam", activations_of=activations_of)
    controls = Controls(embedding_model, LiveSettings())
    assert controls.methods == ["gradient", *methods]
    with pytest.raises(UsageError, match="scorecam"):
        controls.change({"method": "scorecam"})
    explain = make_explainer(embedding_model, "occlusion")
    red, blue = (explain(red_spot, index).map for index in (0, 2))
    assert np.corrcoef(red.ravel(), blue.ravel())[0, 1] < 0.5


class TestExplainer:
    @pytest.mark.parametrize("method", [name for name in methods_of("perturbation") if name != "scorecam"])
    @pytest.mark.parametrize("has_map", [True, False])
    def test_map_locates_the_object(
        self, write_model: Callable[..., Path], red_spot: np.ndarray, method: str, has_map: bool
    ) -> None:
        model = Model.load(write_model(method="cam" if has_map else "none"), threads=1)
        explain = make_explainer(model, method, segments=36 if method in ("lime", "shap") else None)
        for picture in (red_spot, np.rot90(red_spot).copy()):
            spot = picture[..., 0] == 255
            estimate = explain(picture, model.class_index("red", by_explainer=True))
            heat = enlarge(np.maximum(estimate.map, 0)[None], *spot.shape)[0]
            assert heat[spot].mean() > 4 * heat[~spot].mean()
            against = explain(picture, model.class_index("blue", by_explainer=True))
            assert enlarge(against.map[None], *spot.shape)[0][spot].mean() < 0, "red is negative evidence for blue"

    @pytest.mark.parametrize("kind", ["tensor", "output", "int8"])
    def test_score_cam_matches_reference_implementation(
        self, model_path: Path, red_spot: np.ndarray, tmp_path: Path, kind: str
    ) -> None:
        graph = onnx.load(str(model_path))
        given = "target_activations_DequantizeLinear_Output" if kind == "int8" else "target_activations"
        for index, node in enumerate(graph.graph.node):  # names written by the exporter and the quantizer
            node.input[:] = [given if name == "activations" else name for name in node.input]
            if "activations" in node.output:
                node.output[:] = ["target_activations"]
                made_at = index
        if kind == "output":
            graph.graph.output.append(
                helper.make_tensor_value_info("target_activations", TensorProto.FLOAT, ["N", 3, 8, 8])
            )
        if kind == "int8":  # clips at 1/2, as quantization does instead of a ReLU6
            graph.graph.initializer.append(numpy_helper.from_array(np.array(0.5 / 255, np.float32), "scale"))
            graph.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "zero_point"))
            for step, (kernel, taken, made) in enumerate(
                (("QuantizeLinear", "target_activations", "levels"), ("DequantizeLinear", "levels", given))
            ):
                node = helper.make_node(kernel, [taken, "scale", "zero_point"], [made])
                graph.graph.node.insert(made_at + 1 + step, node)
        onnx.save(graph, str(tmp_path / "named.onnx"))
        model = Model.load(tmp_path / "named.onnx", threads=1)
        for picture in (red_spot, np.rot90(red_spot).copy()):
            estimate = make_explainer(model, "scorecam")(picture, 0)
            # The channels of the color model are color means over 8 × 8 pixels.
            channels = picture.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1) / 255
            if kind == "int8":
                channels = np.minimum(np.rint(channels * 510), 255) / 510
            span = np.ptp(channels, axis=(1, 2), keepdims=True) + 1e-8
            masks = enlarge((channels - channels.min(axis=(1, 2), keepdims=True)) / span, 64, 64)
            masked = np.rint(masks[..., None] * picture).astype(np.uint8)
            logits = model.predict(masked).logits[:, 0].astype(np.float64)
            weights = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(estimate.map, np.tensordot(weights, channels, axes=1), rtol=1e-4)
            assert (estimate.standard_error == 0).all()

    def test_same_seed_gives_same_map(self, model: Model, red_spot: np.ndarray) -> None:
        maps = [make_explainer(model, "rise", seed=seed)(red_spot, 0).map for seed in (1, 1, 2)]
        np.testing.assert_array_equal(maps[0], maps[1])
        assert np.abs(maps[0] - maps[2]).max() > 0

    def test_progress_reaches_its_total(self, model: Model, red_spot: np.ndarray) -> None:
        seen: list[tuple[int, int]] = []
        make_explainer(model, "lime", segments=4)(red_spot, 0, lambda _, done, total: seen.append((done, total)))
        assert seen[-1] == (999, 999)
        seen.clear()
        make_explainer(model, "lime", segments=4, budget_ms=60)(
            red_spot, 0, lambda _, done, total: seen.append((done, total))
        )
        assert {total for _, total in seen} == {60}
        assert seen == sorted(seen)
        assert seen[-1] == (60, 60)

    def test_fixed_batch_size_of_one_is_supported(
        self, write_model: Callable[..., Path], red_spot: np.ndarray, tmp_path: Path
    ) -> None:
        path = write_model(method="none")
        free = make_explainer(Model.load(path, threads=1), "occlusion")(red_spot, 0)
        graph = onnx.load(str(path))
        graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(graph, str(tmp_path / "fixed.onnx"))
        fixed = make_explainer(Model.load(tmp_path / "fixed.onnx", threads=1), "occlusion")(red_spot, 0)
        np.testing.assert_allclose(fixed.map, free.map, atol=1e-6)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"method": "gradcam"},
                f"method 'gradcam' does not exist.*Expected one of {', '.join(EXPLAINERS)}",
            ),
            ({"method": "rise", "segments": 9}, "rise has no segments.*lime or shap"),
            ({"method": "shap", "segments": 1}, "1 segments .*Expected 2 to 200"),
            ({"method": "lime", "budget_ms": 0.0}, "budget of 0 ms"),
            (
                {"method": "scorecam"},
                "no tensor target_activations.* Use another --method, such as occlusion",
            ),
        ],
    )
    def test_invalid_settings_are_rejected(self, model: Model, settings: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            make_explainer(model, **settings)  # type: ignore[arg-type]
