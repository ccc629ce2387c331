"""Networks of `paddle.vision`, exported by paddle2onnx; see `foreign_nets`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from foreign_nets import CLASSES, SIDE_PX, TORCH, Array, pictures, save
from paddle.vision import models

NETS = {
    "resnet18": "avgpool",
    "mobilenet_v1": "pool2d_avg",
    "mobilenet_v2": "pool2d_avg",
    "mobilenet_v3_small": "avgpool",
    "vgg11": "classifier.0",
    "densenet121": "pool2d_avg",
    "squeezenet1_1": "_conv9",
    "shufflenet_v2_x0_5": "_pool2d_avg",
    "inception_v3": "avg_pool",
    "googlenet": "_pool_5",
}
"""Layer whose input are the last features, by network."""
SIDES = {"vgg11": 224, "googlenet": 224}


def make(names: list[str], folder: Path) -> Iterator[Path]:
    """Yield the files of the networks."""
    for name in names or NETS:
        paddle.seed(0)
        net = getattr(models, name)(num_classes=CLASSES)
        side = SIDES.get(name, SIDE_PX)
        images = pictures(side)
        _draw(net, _input(pictures(side, seed=9)))
        held: list[Any] = []
        dict(net.named_sublayers())[NETS[name]].register_forward_pre_hook(
            lambda _layer, inputs, held=held: held.append(inputs[0])
        )
        out = net(paddle.to_tensor(_input(images)))
        logits = out[0] if isinstance(out, list | tuple) else out
        (slope,) = paddle.grad(logits.max(1).sum(), [held[0]])
        if slope.ndim == 2:  # flattened
            held[0], slope = (item.reshape([2, -1, 7, 7]) for item in (held[0], slope))
        saliency = (slope.mean((2, 3), keepdim=True) * held[0]).sum(1).numpy()
        stem = folder / f"paddle.{name}"
        save(stem, images, logits.numpy(), saliency, TORCH)
        for opset, batch in ((9, None), (13, 1), (17, None)):
            path = Path(f"{stem}.paddle2onnx{opset}{'' if batch is None else '.fixed'}.onnx")
            spec = paddle.static.InputSpec([batch, 3, side, side], "float32", "x")
            paddle.onnx.export(net, str(path.with_suffix("")), input_spec=[spec], opset_version=opset)
            yield path


def _input(images: Array) -> Array:
    return np.ascontiguousarray(TORCH(images).transpose(0, 3, 1, 2))


def _draw(net: Any, x: Array) -> None:
    """Randomize parameters as in `foreign_keras`; the network is in evaluation mode afterwards."""
    rng = np.random.default_rng(1)
    norms = [layer for layer in net.sublayers() if "BatchNorm" in type(layer).__name__]
    for layer in norms:
        layer._momentum = 0.0
    net.train()
    net(paddle.to_tensor(np.concatenate([x, x[:, :, ::-1], x[:, :, :, ::-1]])))
    net.eval()
    for layer in norms:
        for part in (layer.weight, layer._variance):
            part.set_value(part.numpy() * rng.uniform(0.7, 1.3, part.shape).astype(np.float32))
        for part in (layer.bias, layer._mean):
            part.set_value(part.numpy() + rng.normal(scale=0.1, size=part.shape).astype(np.float32))
