"""Keras networks, exported by `Model.export` and by tf2onnx; see `foreign_nets`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from foreign_nets import CAFFE, CLASSES, HALF, RAW, SIDE_PX, TINY_PX, TORCH, Array, pictures, save
from keras import layers

NETS = {
    "ResNet50": CAFFE,
    "ResNet50V2": HALF,
    "MobileNet": HALF,
    "MobileNetV2": HALF,
    "MobileNetV3Small": RAW,
    "EfficientNetB0": RAW,
    "EfficientNetV2B0": RAW,
    "DenseNet121": TORCH,
    "InceptionV3": HALF,
    "Xception": HALF,
    "VGG16": CAFFE,
    "NASNetMobile": HALF,
    "ConvNeXtTiny": RAW,
}
"""Networks of `keras.applications`, with their preprocessing."""
OPSETS = (13, int(max(tf2onnx.constants.OPSET_TO_IR_VERSION)))


def make(names: list[str], folder: Path) -> Iterator[Path]:
    for name in names or NETS:
        net, front = (tiny(), RAW) if name == "tiny" else (application(name), NETS[name])
        side = net.input.shape[1]
        images, features = pictures(side), _features(net)
        both = keras.Model(net.input, [features, net.output])
        with tf.GradientTape() as tape:
            held, logits = both(tf.constant(front(images)), training=False)
            score = tf.reduce_sum(tf.reduce_max(logits, axis=1))
        slope = tape.gradient(score, held)
        saliency = tf.reduce_sum(tf.reduce_mean(slope, (1, 2), keepdims=True) * held, -1).numpy()
        stem = folder / f"keras.{name}"
        save(stem, images, logits.numpy(), saliency, front)
        net.layers[-1].activation = keras.activations.softmax
        for opset in (None,) if name == "tiny" else (None, OPSETS[0]):
            signature = [keras.InputSpec(shape=(None, side, side, 3), dtype="float32", name="image")]
            path = Path(f"{stem}.export{opset or ''}.onnx")
            net.export(path, format="onnx", opset_version=opset, input_signature=signature, verbose=False)
            yield path
        for opset, batch in () if name == "tiny" else ((15, None), (OPSETS[1], 1)):
            spec = (tf.TensorSpec((batch, side, side, 3), tf.float32, name="input"),)
            path = Path(f"{stem}.tf2onnx{opset}{'' if batch is None else '.fixed'}.onnx")
            function = tf.function(lambda x, net=net: net(x, training=False), input_signature=spec)
            tf2onnx.convert.from_function(function, input_signature=spec, opset=opset, output_path=str(path))
            yield path


def application(name: str) -> Any:
    keras.utils.set_random_seed(0)
    side = {"input_shape": (SIDE_PX, SIDE_PX, 3)}
    net = getattr(keras.applications, name)(weights=None, classes=CLASSES, classifier_activation=None, **side)
    _draw(net, NETS[name](pictures(seed=9)))
    return net


def tiny() -> Any:
    """Build a network with preprocessing in the graph and a head of several layers."""
    keras.utils.set_random_seed(0)
    x = image = layers.Input((TINY_PX, TINY_PX, 3))
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.1, 0.2, 0.3])(layers.Rescaling(1 / 255)(x))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x))
    x = layers.LayerNormalization()(layers.Conv2D(12, 3, strides=2, padding="same", activation="relu")(x))
    x = layers.GlobalAveragePooling2D()(layers.Activation("silu")(x))
    x = layers.LayerNormalization()(layers.Dense(16, activation="elu")(x))
    net = keras.Model(image, layers.Dense(CLASSES, activation=None)(x))
    _draw(net, RAW(pictures(TINY_PX, seed=9)))
    return net


def _draw(net: Any, x: Array) -> None:
    """Perturb the statistics of images, and randomize scales to be neither zero nor one."""
    rng = np.random.default_rng(1)
    norms = [layer for layer in net._flatten_layers() if type(layer).__name__ == "BatchNormalization"]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        net(np.concatenate([x, x[:, ::-1], x[:, :, ::-1]]), training=True)
    for weight in net.weights:
        value = np.asarray(weight)
        if any(part in weight.name for part in ("gamma", "moving_variance")):
            factor = rng.uniform(0.7, 1.3, value.shape)
            weight.assign(factor if np.ptp(value) == 0 else value * factor)
        elif any(part in weight.name for part in ("beta", "bias", "moving_mean")):
            weight.assign(value + rng.normal(scale=0.1, size=value.shape))


def _features(net: Any) -> Any:
    """Return the input of the last global pooling, or of the flattening if there is none."""
    takers = {kind: [layer.input for layer in net.layers if type(layer).__name__ == kind] for kind in KINDS}
    return next(found[-1] for found in takers.values() if found)


KINDS = ("GlobalAveragePooling2D", "Flatten")
