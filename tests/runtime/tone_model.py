"""Small explained model that detects the pitch of a sound by construction."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.drawing.heatmap import MapDisplay
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.modalities.audio_features import dft_kernels, mel_filters, side_padding

__all__ = ["TONES", "TONE_HZ", "TONE_SPEC", "write_tone_model"]

TONES = ("low", "middle", "high")
TONE_HZ = {"low": 250.0, "middle": 1_100.0, "high": 2_600.0}
"""Frequency of a sound of each class."""
TONE_SPEC = AudioInput(
    rate_hz=8_000,
    samples=4_000,
    n_fft=256,
    win_length=200,
    frame_hop=160,
    mel_bands=30,
    fmin_hz=60.0,
    fmax_hz=3_800.0,
    log_offset=1e-5,
    least_peak=0.01,
    mean=-6.0,
    std=2.0,
    hop_s=0.25,
)
_DISPLAY = MapDisplay(0.25, -0.5, 1.0)


def write_tone_model(path: Path, spec: AudioInput = TONE_SPEC) -> Path:
    """Write a classifier of the pitch of a sound, with its map and familiarity.

    Features above their mean are the activations. Each class weights its own third of the mel bands by 1 and the others
    by -1/2, so that the logits of noise are about zero: it is unknown.
    """
    kernels, used = dft_kernels(spec.scale)
    third = np.arange(spec.mel_bands) * 3 // spec.mel_bands
    weights = np.where(third == np.arange(3)[:, None], 1.0, -0.5)
    constants = {
        "dft": kernels[:, None].astype(np.float32),
        "mel": mel_filters(spec.scale)[:, used, None].astype(np.float32),
        "offset": np.float32(spec.log_offset),
        "mean": np.float32(spec.mean),
        "std": np.float32(spec.std),
        "least_peak": np.float32(spec.least_peak),
        "weights": (20 * weights).astype(np.float32),
        "class_index": np.array([-1], np.int64),
        "zero": np.array(0, np.int64),
        "one": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        "map_axes": np.array([2, 3], np.int64),
    }
    node, padding = helper.make_node, side_padding(spec.scale)
    nodes = [
        node("Abs", [spec.name], ["level"]),
        node("ReduceMax", ["level", "one"], ["peak"], keepdims=1),
        node("Max", ["peak", "least_peak"], ["divisor"]),
        node("Div", [spec.name, "divisor"], ["leveled"]),
        node("Unsqueeze", ["leveled", "one"], ["row"]),
        node("Conv", ["row", "dft"], ["spectrum"], strides=[spec.frame_hop], pads=[padding, padding]),
        node("Split", ["spectrum"], ["real", "imaginary"], axis=1, num_outputs=2),
        node("Mul", ["real", "real"], ["real_power"]),
        node("Mul", ["imaginary", "imaginary"], ["imaginary_power"]),
        node("Add", ["real_power", "imaginary_power"], ["power"]),
        node("Conv", ["power", "mel"], ["energy"]),
        node("Add", ["energy", "offset"], ["positive"]),
        node("Log", ["positive"], ["log"]),
        node("Sub", ["log", "mean"], ["centered"]),
        node("Div", ["centered", "std"], ["features"]),
        node("Relu", ["features"], ["activations"]),
        node("Unsqueeze", ["activations", "one"], ["of_all_classes"]),
        node("Unsqueeze", ["weights", "last"], ["columns"]),
        node("Mul", ["of_all_classes", "columns"], ["maps"]),  # N × 3 × mel × time
        node("ReduceMean", ["maps", "map_axes"], ["logits"], keepdims=0),
        node("ReduceMax", ["logits", "one"], ["familiarity"], keepdims=0),
        node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
        node("Less", ["class_index", "zero"], ["is_free"]),
        node("Where", ["is_free", "top", "class_index"], ["explained_class"]),
        node("Gather", ["columns", "explained_class"], ["rows"], axis=0),
        node("Mul", ["activations", "rows"], ["saliency_map"]),
    ]
    value, kinds = helper.make_tensor_value_info, TensorProto
    graph = helper.make_graph(
        nodes,
        "tones",
        # The initializer of the same name is its default.
        [value(spec.name, kinds.FLOAT, ["N", spec.samples]), value("class_index", kinds.INT64, [1])],
        [
            value("logits", kinds.FLOAT, ["N", 3]),
            value("saliency_map", kinds.FLOAT, ["N", spec.mel_bands, spec.frames]),
            value("explained_class", kinds.INT64, ["N"]),
            value("familiarity", kinds.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    outputs = Outputs("cam", None, "gap-linear", spec.mel_bands, spec.frames, _DISPLAY)
    metadata = Metadata(TONES, spec, outputs, familiarity=Familiarity("energy", 1.0, known=100))
    helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
