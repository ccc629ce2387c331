"""Small networks with eight types of heads, for `faithfulness.py`: `kdedge train DATA --model heads.py:NAME`.

All take 64 px. Convolutional ones share a backbone, so that they differ only in the head.
"""

from collections.abc import Callable

import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

__all__ = ["HEADS", "flatten_dense", "gap", "gap_mlp", "max_pool", "swin", "vgg", "vit_mean", "vit_token"]

SIDE_PX = 64


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _body() -> nn.Sequential:
    """Return a convolutional backbone, `[N, 3, 64, 64]` to `[N, 128, 8, 8]`."""
    return nn.Sequential(_block(3, 32, 2), _block(32, 48), _block(48, 64, 2), _block(64, 96, 2), _block(96, 128))


def gap(num_classes: int) -> nn.Module:
    """Build a network with global average pooling and one dense layer."""
    return nn.Sequential(_body(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


def gap_mlp(num_classes: int) -> nn.Module:
    """Build a network with global average pooling and two dense layers, as in MobileNetV3."""
    head = [nn.Linear(128, 256), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(256, num_classes)]
    return nn.Sequential(_body(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def flatten_dense(num_classes: int) -> nn.Module:
    """Build a network with two dense layers on flattened features, as in tutorials."""
    head = [nn.Linear(128 * 8 * 8, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, num_classes)]
    return nn.Sequential(_body(), nn.Flatten(), *head)


def max_pool(num_classes: int) -> nn.Module:
    """Build a network with global maximum pooling and one dense layer."""
    return nn.Sequential(_body(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


class _Vgg(nn.Module):
    """VGG (Simonyan and Zisserman, ICLR 2015) with a quarter of the channels and two max-poolings fewer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, poolings in ((32, 1), (64, 1), (96, 0), (96, 1), (128, 0), (128, 0)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * poolings
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(4)
        self.classifier = nn.Sequential(
            nn.Linear(128 * 16, 256),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[N, K]` of float `[N, 3, 64, 64]`."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def vgg(num_classes: int) -> nn.Module:
    """Build a small VGG: adaptive pooling to 4 × 4, flattened, three dense layers."""
    return _Vgg(num_classes)


def _vit(num_classes: int, pool: str) -> nn.Module:
    network: nn.Module = VisionTransformer(
        img_size=SIDE_PX,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        class_token=pool == "token",
        global_pool=pool,
        num_classes=num_classes,
    )
    return network


def vit_token(num_classes: int) -> nn.Module:
    """Build a vision transformer that classifies its class token."""
    return _vit(num_classes, "token")


def vit_mean(num_classes: int) -> nn.Module:
    """Build a vision transformer that classifies the mean of its tokens."""
    return _vit(num_classes, "avg")


def swin(num_classes: int) -> nn.Module:
    """Build a Swin transformer with two stages, 8 × 8 tokens at its end."""
    network: nn.Module = SwinTransformer(
        img_size=SIDE_PX,
        patch_size=4,
        window_size=4,
        embed_dim=64,
        depths=(2, 2),
        num_heads=(2, 4),
        num_classes=num_classes,
    )
    return network


HEADS: dict[str, Callable[[int], nn.Module]] = {
    factory.__name__: factory for factory in (gap, gap_mlp, flatten_dense, max_pool, vgg, vit_token, vit_mean, swin)
}
