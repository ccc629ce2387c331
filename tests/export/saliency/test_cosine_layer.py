"""Maps of similarities in closed form, compared with autograd."""

from itertools import pairwise

import pytest
import torch
from small_nets import CHANNELS, HeadNet, inputs
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_export.saliency import CAMExplainer, ClosedFormHead, CosineLayer, find_head, make_explained
from kdedge_export.saliency.closed_form_head import CosineHeadLayer
from kdedge_export.saliency.methods import HIRESCAM, METHODS

SIZE, CLASSES = 6, 4


class Embedding(nn.Module):
    """Small network whose logits are similarities; `head` are the layers between pooling and the cosine layer."""

    def __init__(self, *head: nn.Module) -> None:
        super().__init__()
        self.encoder = HeadNet(nn.Sequential(*head))
        size = next((layer.out_features for layer in reversed(head) if isinstance(layer, nn.Linear)), CHANNELS)
        self.similarity = CosineLayer(CLASSES, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.similarity(self.encoder(x))


HEADS = {
    "pooled features": (),
    "a dense layer": (nn.Linear(CHANNELS, SIZE),),
    "two dense layers": (nn.Linear(CHANNELS, 5), nn.Hardswish(), nn.Dropout(), nn.Linear(5, SIZE)),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def decomposition(model: Embedding, path: str, x: Tensor, classes: Tensor) -> Tensor:
    """Return gradient × activations at a layer, with the length of the embedding as a constant, `[N, h, w]`."""
    kept: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda _module, _args, output: kept.append(output.detach().requires_grad_()) or kept[-1].clone()
    )
    embeddings = model.encoder(x)
    handle.remove()
    prototypes = F.normalize(model.similarity.prototypes, dim=1)[classes[:, 0]]
    products = (embeddings * prototypes).sum(dim=1) / embeddings.detach().norm(dim=1)
    (gradient,) = torch.autograd.grad(products.sum(), kept[-1])
    return (kept[-1].detach() * gradient).sum(dim=1)


@pytest.mark.parametrize("head", HEADS)
class TestClosedForm:
    def test_found(self, head: str) -> None:
        found = find_head(Embedding(*HEADS[head]), inputs(1, 0))
        assert isinstance(found.layers[-1], CosineHeadLayer)
        assert found.name.endswith("cosine")

    @pytest.mark.parametrize("count", [1, 3])
    def test_map_equals_the_decomposition_by_autograd(self, head: str, count: int) -> None:
        model = Embedding(*HEADS[head]).eval().requires_grad_(False)
        x, classes = inputs(count, 0), torch.arange(count)[:, None] % CLASSES
        explained = make_explained(model, x[:1])
        assert isinstance(explained, CAMExplainer) and isinstance(explained.head, ClosedFormHead)
        with torch.no_grad():
            maps = explained.class_maps(explained(x), classes)[:, 0]
        expected = decomposition(model, "encoder.features", x, classes)
        assert torch.allclose(maps, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))

    def test_map_has_a_gradient_for_the_loss_of_maps(self, head: str) -> None:
        model = Embedding(*HEADS[head])
        explained = make_explained(model, inputs(1, 0))
        explained.class_maps(explained(inputs(2, 0)), torch.tensor([[0, 1], [2, 3]])).square().sum().backward()
        assert model.encoder.features[0].weight.grad is not None
        assert model.encoder.features[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("head", ["pooled features", "a dense layer"])
def test_map_adds_up_to_the_similarity_but_for_the_bias(head: str, seed: int) -> None:
    model = Embedding(*HEADS[head]).eval().requires_grad_(False)
    x, classes = inputs(3, seed), torch.tensor([[0], [1], [3]])
    explained = make_explained(model, x[:1])
    with torch.no_grad():
        output = explained(x)
        sums = explained.class_maps(output, classes).sum(dim=(2, 3))
        embeddings = model.encoder(x)
    prototypes = F.normalize(model.similarity.prototypes, dim=1)[classes[:, 0]]
    biases = [layer.bias for layer in model.encoder.head.modules() if isinstance(layer, nn.Linear)]
    constant = sum(prototypes @ bias for bias in biases) / embeddings.norm(dim=1)
    assert torch.allclose(sums[:, 0] + constant, output.logits.gather(1, classes)[:, 0], atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_differentiated_head_has_the_same_map(seed: int) -> None:
    model = Embedding(nn.Linear(CHANNELS, SIZE)).eval().requires_grad_(False)
    x, classes = inputs(2, seed), torch.tensor([[0], [3]])
    explained = make_explained(model, x[:1], "hirescam", "encoder.features.2")
    assert isinstance(explained, CAMExplainer) and not isinstance(explained.head, ClosedFormHead)
    with torch.no_grad():
        maps = explained.class_maps(explained(x), classes)[:, 0]
    expected = decomposition(model, "encoder.features.2", x, classes)
    assert torch.allclose(maps, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


class TestLayer:
    def test_gradient_is_that_of_a_cosine(self) -> None:
        layer = CosineLayer(CLASSES, SIZE).double()
        embeddings = torch.randn(3, SIZE, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(layer, embeddings)
        (gradient,) = torch.autograd.grad(layer(embeddings)[:, 0].sum(), embeddings)
        assert torch.allclose((gradient * embeddings).sum(dim=1), torch.zeros(3, dtype=torch.float64), atol=1e-12)

    def test_similarities_ignore_lengths(self) -> None:
        layer, embeddings = CosineLayer(CLASSES, SIZE), torch.randn(5, SIZE)
        expected = F.cosine_similarity(embeddings[:, None], layer.prototypes[None], dim=2)
        assert torch.allclose(layer(embeddings), expected, atol=1e-6)
        layer.prototypes *= torch.tensor([[1e-3], [1.0], [7.0], [1e3]])
        assert torch.allclose(layer(9 * embeddings), expected, atol=1e-6)

    def test_zero_embedding_is_finite(self) -> None:
        layer = CosineLayer(CLASSES, SIZE)
        nothing = torch.zeros(1, SIZE)
        assert not layer(nothing).any()
        assert layer.gradients(nothing, torch.tensor([[0]])).isfinite().all()

    def test_prototypes_are_saved_with_the_weights(self) -> None:
        assert "prototypes" in CosineLayer(CLASSES, SIZE).state_dict()
        assert not list(CosineLayer(CLASSES, SIZE).parameters())


def test_other_methods_explain_similarities() -> None:
    model = Embedding(nn.Linear(CHANNELS, SIZE)).eval().requires_grad_(False)
    maps = {}
    for name in ("hirescam", "gradcam", "eigencam"):
        explained = make_explained(model, inputs(1, 0), name)
        with torch.no_grad():
            maps[name] = explained.class_maps(explained(inputs(2, 0)), torch.tensor([[0], [1]]))
    assert METHODS["hirescam"] is HIRESCAM
    assert all(one.shape == other.shape for one, other in pairwise(maps.values()))
    # After global pooling the gradient is the same at all positions.
    assert torch.allclose(maps["hirescam"], maps["gradcam"], rtol=1e-4, atol=1e-8)
