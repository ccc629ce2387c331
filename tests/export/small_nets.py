"""Small classifiers with common heads, and reference HiResCAM by automatic differentiation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_export.torch_export import ClassifierOnly, ExportableModel, ExportedGraph
from kdedge_runtime import Metadata, Model
from kdedge_runtime.modalities.image import ImageInput

SIDE, POSITIONS, CHANNELS, CLASSES = 32, 8, 12, 10
SPEC = ImageInput(SIDE, SIDE, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the model in evaluation mode, with nontrivial batch normalization."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.6, 1.4),
                (module.bias.data, -0.2, 0.4),
            ):
                value.uniform_(low, high, generator=generator)
    return model.eval()


def body(*, inplace: bool = False) -> nn.Sequential:
    """Return layers from images `[N, 3, 32, 32]` to activations `[N, 12, 8, 8]`."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace),
        nn.Conv2d(8, CHANNELS, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(inplace),
    )


class HeadNet(nn.Module):
    """Body, global average pooling, and a given head."""

    def __init__(self, *head: nn.Module, pool: nn.Module | None = None, inplace: bool = False) -> None:
        super().__init__()
        self.features = body(inplace=inplace)
        self.pool = pool or nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(*(head or [nn.Linear(CHANNELS, CLASSES)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


class PoolsFunction(nn.Module):
    """Network that pools the result of a function, seen only by the pooling module."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(F.silu(self.features(x) - 0.2)).flatten(1))


class RectifiesInPlace(nn.Module):
    """Network that changes a module's output in place before pooling, as DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()[:-1]
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        activations = F.relu(self.features(x), inplace=True)
        return self.head(F.adaptive_avg_pool2d(activations, 1).flatten(1))


class SharesItsReLU(nn.Module):
    """Network whose activation module runs three times, in body and head."""

    def __init__(self, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, CHANNELS, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.pool = pool
        self.fc1 = nn.Linear(CHANNELS, 16)
        self.fc2 = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        pooled = x.mean(dim=(2, 3)) if self.pool is None else self.pool(x).flatten(1)
        return self.fc2(self.relu(self.fc1(pooled)))


def wide_linear(inputs: int, outputs: int, reach: float = 12) -> nn.Linear:
    """Return a dense layer whose outputs cover all pieces of a piecewise activation, from below -3 to above 6."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=reach / inputs**0.5)
    nn.init.uniform_(layer.bias, -reach / 3, reach / 3)
    return layer


def linear_head() -> nn.Module:
    """Return a network with one dense layer, and ReLU in place."""
    return HeadNet(inplace=True)


def every_activation() -> nn.Module:
    """Return a network whose head has every activation with a closed form, with dropout between."""
    activations = [nn.Hardswish(inplace=True), nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.Tanh(), nn.ReLU()]
    layers: list[nn.Module] = [wide_linear(CHANNELS, 16, reach=4)]
    for activation in activations:
        layers += [activation, nn.Dropout(0.2), wide_linear(16, 16, reach=1.5)]
    return HeadNet(*layers[:-1], nn.Linear(16, CLASSES, bias=False))


class Excited(nn.Module):
    """Squeeze-and-excitation between two gated activations, as in MobileNetV3 and EfficientNet."""

    def __init__(self, activation: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.conv2 = nn.Conv2d(8, CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(CHANNELS)
        self.act1, self.act2, self.gate = activation(), activation(), gate()
        self.head = nn.Linear(CHANNELS, CLASSES)
        for conv in (self.conv1, self.conv2):  # so that activations cover all pieces of their functions
            conv.weight.data *= 3

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        gate = self.gate(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = self.act2(self.bn2(self.conv2(x * gate)))
        return self.head(x.mean((2, 3)))


def hard_swish() -> nn.Module:
    """Return a network with HardSwish and a hard gate, as MobileNetV3."""
    return Excited(nn.Hardswish, nn.Hardsigmoid)


def swish() -> nn.Module:
    """Return a network with SiLU and a sigmoid gate, as EfficientNet."""
    return Excited(nn.SiLU, nn.Sigmoid)


NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": linear_head,
    "every activation": every_activation,
    "pools a function": PoolsFunction,
    "rectifies in place": RectifiesInPlace,
    "hard swish": hard_swish,
    "swish": swish,
}


class Flattens(nn.Module):
    """Dense layers on every position, as VGG, and ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(5)
        self.head = nn.Sequential(
            nn.Linear(CHANNELS * 25, 24), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(24, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


class PoolsScores(nn.Module):
    """Class scores by convolution, then averaging, as SqueezeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.head = nn.Sequential(nn.Conv2d(CHANNELS, CLASSES, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
        nn.init.ones_(self.head[0].bias)  # so that every class has positions above zero

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).flatten(1)


class NormalisesPooled(nn.Module):
    """Layer normalization between pooling and the dense layer, as ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.norm, self.head = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.features(x).mean(dim=(2, 3))))


class ConvolvesPooled(nn.Module):
    """A 1 × 1 convolution and batch normalization of pooled values, as MobileNetV4."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(CHANNELS, 24, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.head.extend((nn.Flatten(), nn.Linear(24, CLASSES)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ChannelsLast(nn.Module):
    """Channels-last activations, as Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.norm, self.head = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.norm(self.features(x).permute(0, 2, 3, 1))).mean(dim=(1, 2)))


def class_token() -> nn.Module:
    """Return a vision transformer that classifies its class token, with a nonzero head."""
    net = torchvision.models.VisionTransformer(
        image_size=SIDE, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES
    )
    nn.init.normal_(net.heads.head.weight)
    nn.init.normal_(net.encoder.pos_embedding)
    return net


TAILS: dict[str, Callable[[], nn.Module]] = {
    "flattens": Flattens,
    "pools scores": PoolsScores,
    "normalizes after pooling": NormalisesPooled,
    "convolves after pooling": ConvolvesPooled,
    "channels last": ChannelsLast,
    "class token": class_token,
}
"""Networks with heads without a closed form."""


@dataclass(frozen=True)
class Export:
    """Network as a module, as a graph, and as a loaded file."""

    module: ExportableModel | ClassifierOnly
    graph: ExportedGraph
    metadata: Metadata
    model: Model


def inputs(n: int, seed: int, side: int = SIDE) -> Tensor:
    """Draw normalized images with coarse structure and noise, float `[n, 3, side, side]`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 4, 4, generator=generator)
    grain = torch.randn(n, 3, side, side, generator=generator)
    return F.interpolate(coarse, side, mode="bilinear") + 0.3 * grain


def hires_cam(
    model: nn.Module,
    layer: nn.Module,
    x: Tensor,
    classes: Tensor,
    *,
    of_input: bool = False,
    planes: Callable[[Tensor], Tensor] = lambda activations: activations,
) -> Tensor:
    """Compute HiResCAM by its definition, `[N, h, w]`: gradient × activation, summed over channels.

    Draelos and Carin, 2020, eq. 4, at the output (or input) of a layer, for one class per image; `planes` rearranges
    activations to `[N, C, h, w]`. After global average pooling it equals Grad-CAM before its ReLU.
    """
    seen: list[Tensor] = []
    if of_input:
        handle = layer.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    else:
        handle = layer.register_forward_hook(lambda _module, _args, output: seen.append(output))
    logits = model(x.clone().requires_grad_())
    handle.remove()
    (activations,) = seen
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), activations)
    gradient, activations = planes(gradient), planes(activations)
    return (gradient * activations).sum(dim=1).detach()


def relative_error(measured: Tensor, expected: Tensor) -> float:
    """Return the largest difference in any image's map, relative to that map's largest value."""
    worst = (measured - expected).abs().amax(dim=(1, 2)) / expected.abs().amax(dim=(1, 2))
    return float(worst.max())
