"""Mutated untrusted input: each target raises only the project's own errors.

A case depends only on its seed, so that `fuzz.py --target NAME --seed SEED --cases 1` repeats it.
"""

import contextlib
import io
import json
import math
import socket
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from colour_model import write_color_model
from embedding_model import write_embedding_model
from onnx import helper
from PIL import Image

from kdedge.config.recipe_file import load_recipe
from kdedge.config.resolved_config import ResolvedConfig, resolve_config
from kdedge.config.train_config import TrainConfig
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import RunRecord, read_run, write_run
from kdedge_runtime import Model
from kdedge_runtime.bundle.reader import open_bundle
from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.server import AccessPolicy, Address, HttpServer, RequestHandler, StaticFile, shared_static_files
from kdedge_runtime.util.images import read_image
from kdedge_runtime.util.printable import printable, printable_json

Case = Callable[[np.random.Generator], None]
WILD = [None, True, -1, 0, 0.5, 1e308, math.nan, math.inf, 10**400, 2**63, "", "x" * 5000, "\ud800", "\x1b[2J", [], {}]
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_TEXTS = ["\x1b]0;owned\x07", "\u202e", "\x9b31m", "\r\n", "\udcff", "plain", "ü", "\x00"]


class Unexpected(Exception):
    """Raised when a property that must hold for every input is violated."""


def model_bytes(work: Path) -> Case:
    """Mutate the bytes of a model file, load it, and run it on one image."""
    sound = write_color_model(work / "sound.onnx").read_bytes()

    def case(rng: np.random.Generator) -> None:
        (work / "model.onnx").write_bytes(mutated(sound, rng))
        run_model(work / "model.onnx")

    return case


def model_metadata(work: Path) -> Case:
    """Insert arbitrary values into a model file's metadata, load it, and run it on one image."""
    sound = onnx.load(write_color_model(work / "sound.onnx"))

    def case(rng: np.random.Generator) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(sound)
        entry = model.metadata_props[int(rng.integers(len(model.metadata_props)))]
        value = with_wild_leaf(json.loads(entry.value), rng)
        text = json.dumps(value)  # escapes lone surrogates
        helper.set_model_props(model, {item.key: item.value for item in model.metadata_props} | {entry.key: text})
        onnx.save(model, work / "model.onnx")
        run_model(work / "model.onnx")

    return case


def image(work: Path) -> Case:
    """Mutate the bytes of an image file and decode it."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    sound = []
    for kind in _IMAGE_FORMATS:
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, kind)
        sound.append(held.getvalue())

    def case(rng: np.random.Generator) -> None:
        path = work / "photo.jpg"
        path.write_bytes(mutated(sound[int(rng.integers(len(sound)))], rng))
        decoded = read_image(path)
        if decoded.dtype != np.uint8 or decoded.ndim != 3 or decoded.shape[2] != 3:
            raise Unexpected(f"decoded to {decoded.dtype} {decoded.shape}")

    return case


def run_record(work: Path) -> Case:
    """Insert arbitrary values into run.json and read it."""
    request = TrainConfig("photos", "small:resnet8")
    config = resolve_config(request, load_recipe("labels"), batch_size=8, weights={"ce": 1.0}, epochs=3)
    record = RunRecord(
        kind="train",
        model=ModelSpec("small:resnet8", 2),
        input=ImageInput(32, 32, (0.5,) * 3, (0.25,) * 3),
        labels=("a", "b"),
        data={"source": "/photos", "fingerprint": "ab", "train": 8, "val": 2, "samples_per_class": None},
        recipe=asdict(config) | {"measured": []},
        request=request.given,
        device="CPU",
        result={"best": {"epoch": 1}, "last": {"epoch": 3}, "seconds": 1.0},
    )
    write_run(work, record)
    sound = json.loads((work / "run.json").read_text())

    def case(rng: np.random.Generator) -> None:
        (work / "run.json").write_text(json.dumps(with_wild_leaf(sound, rng)))
        ResolvedConfig.from_record(read_run(work).recipe)

    return case


def recipe(work: Path) -> Case:
    """Mutate a recipe file and read it."""
    sound = b"epochs = 24\nbatch_size = 64\nlearning_rate = 0.05\n[loss]\nce = 0.1\nmapall = { weight = 20 }\n"

    def case(rng: np.random.Generator) -> None:
        (work / "mine.toml").write_bytes(mutated(sound, rng))
        load_recipe(str(work / "mine.toml"))

    return case


def enrolled_classes(work: Path) -> Case:
    """Mutate the bytes or insert arbitrary values into a file of enrolled classes, answer with it, and add to it."""
    model, path = Model.load(write_embedding_model(work / "colors.onnx"), threads=1), work / "classes.json"
    rows = np.eye(3, dtype=np.float32)
    EnrolledClasses.of_model(model).add("a", rows[:2]).add("b", rows[1:]).write(path)
    sound = path.read_bytes()
    blue = np.full((1, 64, 64, 3), (10, 20, 250), np.uint8)

    def case(rng: np.random.Generator) -> None:
        is_json = rng.random() < 0.5
        content = json.dumps(with_wild_leaf(json.loads(sound), rng)).encode() if is_json else mutated(sound, rng)
        path.write_bytes(content)
        classes = EnrolledClasses.read(path, model)
        if not np.isfinite(classes.apply_to(model).predict(blue).logits).all():
            raise Unexpected("similarities are not finite")
        for name in (classes.names[0], "another"):
            classes = classes.add(name, rows[:1])
        classes.write(path)
        EnrolledClasses.read(path, model).apply_to(model)

    return case


def bundle(work: Path) -> Case:
    """Mutate the bytes of a bundle and open it."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("model.onnx", write_color_model(work / "sound.onnx").read_bytes())
        archive.writestr("SHA256SUMS", "0" * 64 + "  model.onnx\n")

    def case(rng: np.random.Generator) -> None:
        (work / "bundle.zip").write_bytes(mutated(held.getvalue(), rng))
        with open_bundle(work / "bundle.zip"):
            pass

    return case


class _Page(RequestHandler):
    def assets(self) -> Mapping[str, StaticFile]:
        return shared_static_files()


def request_head(work: Path) -> Case:
    """Send a mutated request head to the web server; the next valid request is answered."""
    server = HttpServer(AccessPolicy.at(Address("127.0.0.1", 0)), _Page)
    server.start("fuzzed")
    address = server.server_address[:2]
    sound = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nCookie: a=b\r\nConnection: close\r\n\r\n"

    def send(content: bytes) -> bytes:
        with socket.create_connection(address, timeout=5) as client:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            return client.recv(64)

    def case(rng: np.random.Generator) -> None:
        with contextlib.suppress(OSError):  # it may disconnect after an invalid request
            send(mutated(sound, rng))
        if not send(sound).startswith(b"HTTP/1."):
            raise Unexpected("a valid request was not answered")

    return case


def terminal_text(work: Path) -> Case:
    """Escape untrusted text for a terminal and for JSON lines."""

    def case(rng: np.random.Generator) -> None:
        text = "".join(_TEXTS[at] for at in rng.integers(len(_TEXTS), size=6))
        for shown in (printable(text), printable_json({"label": text})):
            if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown):
                raise Unexpected(f"{text!r} is shown as {shown!r}")

    return case


TARGETS: dict[str, Callable[[Path], Case]] = {
    target.__name__: target
    for target in (
        model_bytes,
        model_metadata,
        image,
        run_record,
        recipe,
        enrolled_classes,
        bundle,
        request_head,
        terminal_text,
    )
}


def run_model(path: Path) -> None:
    """Load a model file and run it on one gray image."""
    model = Model.load(path, threads=1)
    spec = model.metadata.input
    explanation = model.predict(np.full((1, spec.height, spec.width, 3), 128, np.uint8))
    if explanation.logits.shape != (1, len(model.metadata.labels)):
        raise Unexpected(f"logits {explanation.logits.shape} of {len(model.metadata.labels)} labels")


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, insert, remove or repeat some bytes, or truncate the end."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 17))
        kind = int(rng.integers(5))
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at:at] = rng.bytes(length)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        else:
            data[at : at + length] = rng.bytes(length)
    return bytes(data[: int(rng.integers(len(data) + 1))]) if rng.random() < 0.1 else bytes(data)


def with_wild_leaf(document: Any, rng: np.random.Generator) -> Any:
    """Copy a JSON document with one of its values replaced by an arbitrary one."""
    copy = json.loads(json.dumps(document))
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            places.append((value, key))
            walk(inner)

    walk(copy)
    wild = WILD[int(rng.integers(len(WILD)))]
    if not places:
        return wild
    holder, key = places[int(rng.integers(len(places)))]
    holder[key] = wild
    return copy
