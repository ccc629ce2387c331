"""Measure kdedge's model files in other inference engines: latency, size, and the error of logits and map.

```
python tests/benchmarks/engines.py FILE.onnx …                                # OpenVINO and ncnn, if they are installed
python tests/benchmarks/engines.py FILE.onnx … --onnx2tf CONVERTER/bin/onnx2tf    # LiteRT as well
```

    pip install openvino ncnn pnnx ai-edge-litert
    python3.12 -m venv CONVERTER && CONVERTER/bin/pip install onnx2tf     # needs Python 3.12 and another numpy

Prints one JSON line per file and engine. Each engine uses one thread, and all of them run one after the other in every
round, so that other programs disturb all of them alike. `cpu_ratio` is the median over the rounds of onnxruntime's CPU
time divided by the engine's, with the quartiles; `wall_ratio` is the same for wall-clock time. On a busy machine the
latter is lower for engines that wait for a thread of their own, such as OpenVINO.
`logits` and `map` are the largest differences to onnxruntime's outputs on four inputs, relative to their range;
`same_class` is the number of inputs with the same top-1 class. `installed_mb` is the size of the engine's package.
`fault` is the reason why a file does not run.

- `openvino`: the file as it is, with the batch fixed to 1, computed in float32; `openvino-default` in the precision
  that OpenVINO selects, which is bfloat16 on cores with it.
- `ncnn`: the file is cut to normalized images in, logits and target activations out, and converted by pnnx. The rest
  runs in numpy: the map is one product, which needs one dense layer after the pooling. `ncnn-default` stores
  activations in 16 bits, as ncnn does by default.
- `litert`: the file converted by onnx2tf.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in (ROOT, ROOT / "export", ROOT / "runtime"):
    sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx.utils import Extractor  # noqa: E402

from kdedge_runtime import Model  # noqa: E402
from kdedge_runtime.explainers.target_activations import ACTIVATIONS  # noqa: E402
from kdedge_runtime.modalities.image import require_image  # noqa: E402
from kdedge_runtime.util.files import file_sha256  # noqa: E402

Array = np.ndarray[Any, Any]
OUTPUTS = ["logits", "saliency_map"]
INPUTS = 4
"""Number of inputs whose outputs are compared."""
WARM_UPS = 5
_DIGITS = 12
"""Number of digits of a file's SHA-256 in the name of its folder."""
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "litert": "ai-edge-litert"}


@dataclass(frozen=True)
class Engine:
    """A model opened in an engine."""

    name: str
    bytes: int
    run: Callable[[Array], tuple[Array, Array | None]]
    """Function from an image, uint8 `[1, H, W, 3]`, to logits `[1, K]` and map `[1, h, w]`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.onnx")
    parser.add_argument("--onnx2tf", type=Path, help="onnx2tf's program, which is installed in its own environment")
    parser.add_argument(
        "--converted", type=Path, metavar="DIR", help="keep converted files, and use those of an earlier call"
    )
    parser.add_argument("--seconds", type=float, default=30, help="time to measure each file [default: 30]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for file in options.files:
            for line in measured(file.absolute(), conversions_of(file, options.converted or Path(temporary)), options):
                print(json.dumps({"file": file.name} | line), flush=True)


def conversions_of(file: Path, folder: Path) -> Path:
    """Return the folder for conversions of a file, which has another name if the content changes."""
    return folder / f"{file.stem}-{file_sha256(file)[:_DIGITS]}"


def converted(folder: Path, convert: Callable[[Path], None]) -> Path:
    """Return a folder that `convert` has filled, in this call or an earlier one; it appears whole or not at all."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as temporary:
            begun = Path(temporary, folder.name)
            begun.mkdir()
            convert(begun)
            begun.rename(folder)
    return folder


def measured(file: Path, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    openers: dict[str, Callable[[], Engine]] = {
        "openvino": lambda: openvino_engine(file, "f32"),
        "openvino-default": lambda: openvino_engine(file, None),
        "ncnn": lambda: ncnn_engine(file, folder, compact=False),
        "ncnn-default": lambda: ncnn_engine(file, folder, compact=True),
    }
    if options.onnx2tf is not None or (folder / "litert").is_dir():
        openers["litert"] = lambda: litert_engine(file, folder, options.onnx2tf)
    images = [Model.load(file).metadata.input.reference_sample(seed)[None] for seed in range(INPUTS)]
    engines = [onnxruntime_engine(file)]
    for name, opener in openers.items():
        try:
            engine = opener()
            engine.run(images[0])
        except Exception as error:  # each engine has its own exceptions
            yield {"engine": name, "fault": f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"}
        else:
            engines.append(engine)
    expected = [engines[0].run(image) for image in images]
    laps = timed(engines, images[0], options.seconds)
    for engine, own in zip(engines, laps.transpose(1, 0, 2), strict=True):
        quotients = laps[:, 0] / own
        yield {
            "engine": engine.name,
            "cpu_ms": round(float(np.median(own[:, 1])) * 1000, 3),
            "cpu_ratio": round(float(np.median(quotients[:, 1])), 3),
            "cpu_quartiles": np.percentile(quotients[:, 1], (25, 75)).round(3).tolist(),
            "wall_ratio": round(float(np.median(quotients[:, 0])), 3),
            "rounds": len(laps),
            "mb": round(engine.bytes / 1e6, 2),
            "installed_mb": round(installed_bytes(PACKAGES[engine.name.removesuffix("-default")]) / 1e6),
            **errors(expected, [engine.run(image) for image in images]),
        }


def installed_bytes(package: str) -> int:
    """Return the size of a package without that of the packages it needs and without byte code."""
    paths = [Path(str(item.locate())) for item in files(package) or () if item.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def timed(engines: list[Engine], image: Array, seconds: float) -> Array:
    """Return wall-clock time and CPU time of each engine in s, `[rounds, engines, 2]`.

    The order is random, and each timed pass follows one of the same engine, so that the caches hold its own weights.
    """
    rounds: list[Array] = []
    generator = np.random.default_rng(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rounds) <= WARM_UPS:
        laps = np.zeros((len(engines), 2))
        for index in generator.permutation(len(engines)):
            engines[index].run(image)
            wall, cpu = time.perf_counter(), time.process_time()
            engines[index].run(image)
            laps[index] = time.perf_counter() - wall, time.process_time() - cpu
        rounds.append(laps)
    return np.stack(rounds[WARM_UPS:])


def errors(expected: list[tuple[Array, Array | None]], actual: list[tuple[Array, Array | None]]) -> dict[str, Any]:
    """Return the largest relative errors; that of the map is null if the engine returns none."""
    logits = max(_error(one[0], other[0]) for one, other in zip(expected, actual, strict=True))
    maps = [(one[1], other[1]) for one, other in zip(expected, actual, strict=True)]
    return {
        "logits": logits,
        "map": None if any(other is None for _, other in maps) else max(_error(*pair) for pair in maps),
        "same_class": sum(
            int(one[0].argmax() == other[0].argmax()) for one, other in zip(expected, actual, strict=True)
        ),
    }


def _error(expected: Any, actual: Any) -> float:
    return float(f"{np.abs(expected - actual).max() / np.ptp(expected):.1e}")


def onnxruntime_engine(file: Path) -> Engine:
    session = Model.load(file, threads=1).session

    def run(image: Array) -> tuple[Array, Array | None]:
        logits, saliency_map = session.run(OUTPUTS, {"image": image})
        return logits, saliency_map

    return Engine("onnxruntime", file.stat().st_size, run)


def openvino_engine(file: Path, precision: str | None) -> Engine:
    import openvino

    core = openvino.Core()
    network = core.read_model(file)
    network.reshape({"image": [1, *(side.get_length() for side in list(network.input("image").partial_shape)[1:])]})
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    hint = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(network, "CPU", settings | hint).create_infer_request()

    def run(image: Array) -> tuple[Array, Array | None]:
        request.infer({"image": image}, share_inputs=True)
        logits, saliency_map = (request.get_tensor(name).data for name in OUTPUTS)
        return logits.copy(), saliency_map.copy()

    return Engine("openvino" if precision else "openvino-default", file.stat().st_size, run)


def ncnn_engine(file: Path, folder: Path, *, compact: bool) -> Engine:
    import ncnn

    spec = require_image(Model.load(file).metadata.input, str(file))
    graph, weight = portable(file)

    def convert(begun: Path) -> None:
        onnx.save(graph, begun / "portable.onnx")
        run_pnnx(begun, f"inputshape=[1,3,{spec.height},{spec.width}]f32", compact=compact)

    folder = converted(folder / ("fp16" if compact else "fp32"), convert)
    files = folder / "portable.ncnn.param", folder / "portable.ncnn.bin"
    net = ncnn.Net()
    net.opt.num_threads = 1
    for setting in ("use_bf16_storage", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, setting, compact)
    if net.load_param(str(files[0])) or net.load_model(str(files[1])):
        raise ValueError("ncnn cannot load the converted file")
    mean = [255 * value for value in spec.mean]
    scale = [1 / (255 * value) for value in spec.std]

    def run(image: Array) -> tuple[Array, Array | None]:
        pixels = ncnn.Mat.from_pixels(image[0], ncnn.Mat.PixelType.PIXEL_RGB, spec.width, spec.height)
        pixels.substract_mean_normalize(mean, scale)
        with net.create_extractor() as extractor:
            extractor.input("in0", pixels)
            logits, activations = (np.array(extractor.extract(name)[1]) for name in ("out0", "out1"))
        if weight is None:
            return logits[None], None
        cells = activations.shape[1] * activations.shape[2]
        return logits[None], np.tensordot(weight[logits.argmax()] / cells, activations, 1)[None]

    return Engine("ncnn-default" if compact else "ncnn", sum(each.stat().st_size for each in files), run)


def run_pnnx(folder: Path, shape: str, *, compact: bool) -> None:
    """Convert `portable.onnx` for ncnn."""
    program = Path(sys.executable).with_name("pnnx")
    command = [str(program), "portable.onnx", shape, f"fp16={int(compact)}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    unsupported = [line for line in done.stderr.splitlines() if "not supported" in line]
    if unsupported:
        raise ValueError(f"pnnx: {unsupported[0]}")


def portable(file: Path) -> tuple[onnx.ModelProto, Array | None]:
    """Return the graph from normalized images to logits and target activations, and the weights of its dense layer.

    The product of the weights `[K, C]` with the activations is the map. None if there is another dense layer before it.
    """
    model = onnx.load(file)
    inner = {value: node for node in model.graph.node for value in node.output}
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = Extractor(inferred).extract_model([convolution.input[0]], ["logits", ACTIVATIONS])
    dense = inner["logits"]
    before = inner[dense.input[0]]
    while before.op_type in ("Reshape", "Flatten", "Squeeze"):
        before = inner[before.input[0]]
    if before.op_type not in ("ReduceMean", "GlobalAveragePool"):
        return graph, None
    weights = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    name = dense.input[1]
    found: Array = weights[name if name in weights else inner[name].input[0]]  # cast in fp16 files
    return graph, found.astype(np.float32)


def litert_engine(file: Path, folder: Path, program: Path | None) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    def convert(begun: Path) -> None:
        assert program is not None, "a file without conversion is not opened"
        # onnx2tf compares its own outputs on 20 photos that it downloads, unless they are here.
        photos = np.random.default_rng(0).random((20, 128, 128, 3), dtype=np.float32)
        np.save(begun / "calibration_image_sample_data_20x128x128x3_float32.npy", photos)
        command = [str(program.absolute()), "-i", str(file), "-o", str(begun), "-b", "1", "-n", "-kat", "image"]
        subprocess.run(command, cwd=begun, capture_output=True, check=True)

    (path,) = converted(folder / "litert", convert).glob("*_float32.tflite")
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    places = {item["name"]: item["index"] for item in interpreter.get_output_details()}

    def run(image: Array) -> tuple[Array, Array | None]:
        interpreter.set_tensor(taken["index"], image)
        interpreter.invoke()
        logits, saliency_map = (interpreter.get_tensor(places[name]) for name in OUTPUTS)
        return logits, saliency_map

    return Engine("litert", path.stat().st_size, run)


if __name__ == "__main__":
    main()
