"""Black-box explainers, compared with reference packages: equal masks give equal maps."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from kdedge.pipelines.model_export import export_model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.explainers.kernel_shap import kernel_shap, shapley_values
from kdedge_runtime.explainers.lime import lime, local_model
from kdedge_runtime.explainers.masked_scorer import MaskedScorer
from kdedge_runtime.explainers.occlusion import occlusion
from kdedge_runtime.explainers.score_cam import score_cam
from kdedge_runtime.explainers.superpixels import superpixels
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.model import Model

DATA = Path(__file__).parents[3] / "shared" / "data"
PHOTOS = ("0200_n02097474.jpg", "0782_n04152593.jpg")
"""Photo of a terrier and a television."""

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the reference data beside the checkout"),
]


class Network:
    """Model file that computes the scores of each image once, since both packages evaluate many equal images."""

    def __init__(self, path: Path) -> None:
        self._model = Model.load(path, threads=1)
        self._known: dict[bytes, np.ndarray] = {}
        self.input = self._model.metadata.input
        self.hidden_color = np.rint(255 * np.array(self.input.mean)).astype(np.uint8)

    def scores(self, pictures: np.ndarray) -> np.ndarray:
        """Return the scores of uint8 images `[N, h, w, 3]`, `[N, K]`."""
        keys = [hashlib.sha256(np.ascontiguousarray(picture)).digest() for picture in pictures]
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._known}
        if new:
            self._known |= zip(new, self._model.predict(np.stack(list(new.values()))).scores, strict=True)
        return np.stack([self._known[key] for key in keys])

    def score_of(self, class_index: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda pictures: self.scores(pictures)[:, class_index]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """EfficientNet-Lite0 without a built-in map."""
    path = tmp_path_factory.mktemp("model") / "lite0.onnx"
    weights = DATA / "weights" / "tf_efficientnet_lite0.safetensors"
    profile = load_profile("generic")
    export_model("timm:tf_efficientnet_lite0", weights=weights, output=path, method="none", profile=profile)
    return Network(path)


@pytest.fixture(scope="module", params=PHOTOS)
def case(request: pytest.FixtureRequest, model: Network) -> tuple[np.ndarray, int]:
    """Photo at the model's input size, and its top class."""
    with zipfile.ZipFile(DATA / "imagenet-sample-500.zip") as archive, archive.open(request.param) as file:
        picture = model.input.preprocess(np.asarray(Image.open(file).convert("RGB")))
    return picture, int(model.scores(picture[None]).argmax())


class Recording(MaskedScorer):
    """Probe that records masks and scores, with a budget of 250 evaluations."""

    def __init__(self, score: Callable[[np.ndarray], np.ndarray], picture: np.ndarray, hidden: np.ndarray) -> None:
        self.evaluations = 0
        super().__init__(score, picture, hidden, budget_ms=250, clock=lambda: self.evaluations / 1e3)
        self.kept: list[np.ndarray] = []
        self.predictions: list[float] = []

    def score(self, keep: np.ndarray) -> np.ndarray:
        predictions = super().score(keep)
        self.kept.extend(keep)
        self.predictions.extend(predictions)
        return predictions


def assert_within_the_errors(ours: np.ndarray, errors: np.ndarray, theirs: np.ndarray) -> None:
    """Compare two independent estimates with similar errors."""
    apart = (ours - theirs) / (errors * 2**0.5)
    assert np.abs(apart).max() < 4
    assert 0.6 < np.sqrt((apart**2).mean()) < 1.4
    assert np.corrcoef(ours, theirs)[0, 1] > 0.75


def test_occlusion_equals_captum(model: Network, case: tuple[np.ndarray, int]) -> None:
    attr = pytest.importorskip("captum.attr", reason="the reference is captum")
    picture, class_index = case
    score, hidden = model.score_of(class_index), model.hidden_color

    def forward(images: Tensor) -> Tensor:
        return torch.from_numpy(score(images.permute(0, 2, 3, 1).numpy().astype(np.uint8)))

    theirs = attr.Occlusion(forward).attribute(
        torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float(),
        sliding_window_shapes=(3, 48, 48),
        strides=(3, 16, 16),
        baselines=torch.from_numpy(hidden.astype(np.float32))[None, :, None, None].expand(1, 3, 224, 224),
        perturbations_per_eval=8,
    )
    ours = occlusion(MaskedScorer(score, picture, model.input))
    pixels = theirs[0, 0].numpy()
    assert np.abs(pixels).max() > 0.02
    np.testing.assert_allclose(np.kron(ours.map, np.ones((16, 16))), pixels, atol=1e-5)


def test_lime_equals_lime_on_equal_samples(model: Network, case: tuple[np.ndarray, int]) -> None:
    lime_base = pytest.importorskip("lime.lime_base", reason="the reference is lime")
    metrics = pytest.importorskip("sklearn.metrics")
    picture, class_index = case
    parts = superpixels(picture, 30)
    scorer = Recording(model.score_of(class_index), picture, model.input)
    ours = lime(scorer, parts)
    first = [int(np.flatnonzero(parts.ravel() == part)[0]) for part in range(int(parts.max()) + 1)]
    shown = np.stack(scorer.kept).reshape(-1, parts.size)[:, first]
    distances = metrics.pairwise_distances(shown, shown[:1], metric="cosine").ravel()
    base = lime_base.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)
    scores = np.array(scorer.predictions)[:, None]
    _, explained, _, _ = base.explain_instance_with_data(
        shown, scores, distances, 0, num_features=len(first), feature_selection="none"
    )
    theirs = np.array([weight for _, weight in sorted(explained)])
    np.testing.assert_allclose(ours.map.ravel()[first], theirs, atol=1e-6)
    assert np.abs(theirs).max() > 0.01


def test_lime_equals_lime_within_errors(model: Network, case: tuple[np.ndarray, int]) -> None:
    lime_image = pytest.importorskip("lime.lime_image", reason="the reference is lime")
    picture, class_index = case
    parts = superpixels(picture, 30)
    ours = lime(Recording(model.score_of(class_index), picture, model.input), parts)
    explained = lime_image.LimeImageExplainer(random_state=2).explain_instance(
        picture,
        lambda pictures: model.scores(np.asarray(pictures, np.uint8)),
        labels=(class_index,),
        top_labels=None,
        hide_color=model.hidden_color,
        num_samples=256,
        segmentation_fn=lambda _: parts,
    )
    theirs = np.array([weight for _, weight in sorted(explained.local_exp[class_index])])
    first = [int(np.flatnonzero(parts.ravel() == part)[0]) for part in range(len(theirs))]
    assert_within_the_errors(ours.map.ravel()[first], ours.standard_error.ravel()[first], theirs)


@pytest.fixture(scope="module")
def shap() -> Any:
    """Import shap without compilation, which takes longer than its few evaluations."""
    numba = pytest.importorskip("numba", reason="the reference is shap, which needs numba")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        return pytest.importorskip("shap", reason="the reference is shap")


class TestShap:
    @staticmethod
    def value(model: Network, case: tuple[np.ndarray, int], parts: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return the value function that `shap` expects: rows of zeros and ones, one column per part."""
        picture, class_index = case
        scorer = MaskedScorer(model.score_of(class_index), picture, model.input)

        def of(rows: np.ndarray) -> np.ndarray:
            shown = np.asarray(rows, bool)[:, parts].astype(np.float32)
            return np.concatenate([scorer.score(batch) for batch in np.array_split(shown, -(-len(shown) // 8))])

        return of

    def test_few_parts_are_exact(self, shap: Any, model: Network, case: tuple[np.ndarray, int]) -> None:
        picture, class_index = case
        parts = superpixels(picture, 6)
        count = int(parts.max()) + 1
        ours = kernel_shap(MaskedScorer(model.score_of(class_index), picture, model.input), parts)
        explainer = shap.explainers.Exact(self.value(model, case, parts), np.zeros((1, count)))
        theirs = explainer(np.ones((1, count))).values[0]
        np.testing.assert_allclose(ours.map, theirs[parts], atol=1e-6)
        assert np.abs(theirs).max() > 0.02

    def test_values_of_equal_coalitions_are_equal(
        self, shap: Any, model: Network, case: tuple[np.ndarray, int]
    ) -> None:
        parts = superpixels(case[0], 20)
        count = int(parts.max()) + 1
        value = self.value(model, case, parts)
        explainer = shap.KernelExplainer(value, np.zeros((1, count)))
        theirs = explainer.shap_values(np.ones((1, count)), nsamples=200, l1_reg=False, silent=True)[0]
        used = explainer.nsamplesAdded
        nothing, everything = value(np.array([[0] * count, [1] * count]))
        ours, _ = shapley_values(
            np.asarray(explainer.maskMatrix)[:used] > 0,
            np.asarray(explainer.kernelWeights)[:used],
            np.asarray(explainer.ey)[:used].ravel(),
            nothing,
            everything,
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-6)

    def test_many_parts_agree_within_errors(self, shap: Any, model: Network, case: tuple[np.ndarray, int]) -> None:
        picture, class_index = case
        parts = superpixels(picture, 20)
        count = int(parts.max()) + 1
        ours = kernel_shap(Recording(model.score_of(class_index), picture, model.input), parts)
        explainer = shap.KernelExplainer(self.value(model, case, parts), np.zeros((1, count)))
        np.random.seed(0)  # shap draws coalitions from the global generator
        theirs = explainer.shap_values(np.ones((1, count)), nsamples=500, l1_reg=False, silent=True)[0]
        first = [int(np.flatnonzero(parts.ravel() == part)[0]) for part in range(count)]
        apart = (ours.map.ravel()[first] - theirs) / (ours.standard_error.ravel()[first] * 2**0.5)
        assert np.abs(apart).max() < 4
        assert np.corrcoef(ours.map.ravel()[first], theirs)[0, 1] > 0.75


def test_score_cam_equals_pytorch_grad_cam(case: tuple[np.ndarray, int], monkeypatch: pytest.MonkeyPatch) -> None:
    cam = pytest.importorskip("pytorch_grad_cam", reason="the reference is grad-cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    picture, _ = case
    torch.manual_seed(0)

    class Net(nn.Module):
        """Network on pixels minus the baseline color, so that grad-cam's product with a mask equals our masking."""

        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 24, 7, stride=16), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.ReLU())
            self.head = nn.Linear(24, 10)

        def forward(self, apart: Tensor) -> Tensor:
            pixels = torch.round(apart + 128) / 255 - 0.5
            return 300 * self.head(self.features(pixels).mean(dim=(2, 3)))

    net = Net().eval()
    small = picture[48:176, 48:176].copy()
    apart = torch.from_numpy(small.astype(np.float32) - 128).permute(2, 0, 1)[None]
    # Their masks are aligned at the corners by default; ours, like kdedge's overlays, have equal cell sizes.
    monkeypatch.setattr(
        torch.nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=size, mode="bilinear", align_corners=False)
    )
    maps: list[np.ndarray] = []
    resized = cam.base_cam.scale_cam_image
    monkeypatch.setattr(
        cam.base_cam, "scale_cam_image", lambda image, size=None: (maps.append(image), resized(image, size))[1]
    )
    cam.ScoreCAM(net, [net.features])(apart, [targets.ClassifierOutputTarget(3)])
    with torch.no_grad():
        activations = net.features(torch.round(apart + 128) / 255 - 0.5)[0].numpy()

    def logit(pictures: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            tensor = torch.from_numpy(pictures.astype(np.float32) - 128).permute(0, 3, 1, 2)
            return net(tensor)[:, 3].numpy()

    ours = score_cam(
        MaskedScorer(logit, small, ImageInput(*small.shape[:2], (128 / 255,) * 3, (1.0,) * 3)), activations
    )
    # A mask that differs in its last bit may round a pixel to the next level.
    np.testing.assert_allclose(ours.map, maps[0].reshape(ours.map.shape), rtol=0.015)
    assert np.ptp(ours.map) > 0.01
    plain = activations.mean(axis=0)
    assert np.abs(ours.map / plain - 1).max() > 0.15, "the weights matter"


def test_weight_of_an_always_visible_part_is_zero() -> None:
    shown = np.random.default_rng(0).random((200, 5)) < 0.5
    shown[:, 2] = True
    weights, errors = local_model(shown, shown @ np.arange(5.0))
    assert weights[2] == pytest.approx(0, abs=1e-9)
    assert np.isfinite(errors).all()
