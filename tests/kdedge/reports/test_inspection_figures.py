"""Figures of the inspection: the attribution of a prediction, and the layers."""

import base64
import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kdedge.pipelines.model_inspection import ImageInspection
from kdedge.reports.decision_figure import decision_figure
from kdedge.reports.inspection_page import decision_page
from kdedge.reports.structure_figure import structure_figure
from kdedge_export.html.charts import COLORS, Chart
from kdedge_export.inspection.attribution import Attribution
from kdedge_export.inspection.layer_attribution import AttributionStage, Channel, LayerAttribution
from kdedge_export.inspection.layer_timing import LayerTimes
from kdedge_export.inspection.structure import GraphLayer, GraphStructure
from kdedge_runtime.drawing.fonts import find_font
from kdedge_runtime.util.arrays import Pixels

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("x")</script>'


def inspection(*, shift: tuple[float, float] = (0.0, 0.0), label: str = "cat", name: str = "a.png") -> ImageInspection:
    saliency_map = np.zeros((4, 4), np.float32)
    saliency_map[1:3, 1:3] = 1.0
    signed = np.array([[1.0, 0.0], [0.0, -0.5]], np.float32)
    evidence = Attribution(saliency_map, (Channel(7, -0.25, 0.125, signed),), np.ones(1), None, shift)
    stages = (AttributionStage("features", (8, 8), evidence),)
    decision = LayerAttribution(0, ((0, 0.75), (1, 0.25)), stages, {})
    return ImageInspection(name, np.full((64, 64, 3), 128, np.uint8), decision, (label, "dog"))


def images(figure: Chart) -> list[Image.Image]:
    root = ElementTree.fromstring(figure.svg_file())
    encoded = [element.attrib["href"].split(",", 1)[1] for element in root.iter(f"{SVG}image")]
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded]


def texts(figure: Chart) -> list[str]:
    return ["".join(item.itertext()) for item in ElementTree.fromstring(figure.svg_file()).iter(f"{SVG}text")]


def test_figure_shows_the_prediction_and_each_stage() -> None:
    shown = texts(decision_figure(inspection()))
    assert {"image", "explained: cat", "cat  75.0%", "dog  25.0%", "8 × 8 map", "features"} <= set(shown)
    assert "evaluated at 4 × 4" in shown
    assert "7 −12.5%" in shown


def test_map_is_drawn_at_its_shift() -> None:
    def center(shift: tuple[float, float]) -> float:
        overlay = np.asarray(images(decision_figure(inspection(shift=shift)))[1].convert("RGB"))
        heat = np.abs(overlay.astype(int) - 128).sum(axis=2)
        return float((heat.sum(axis=0) * np.arange(heat.shape[1])).sum() / heat.sum() / heat.shape[1])

    assert center((-0.25, -0.25)) == pytest.approx(center((0.0, 0.0)) - 0.25 / 4, rel=0.05)


def test_channel_maps_have_exact_positions_and_transparency() -> None:
    *photos, channel = images(decision_figure(inspection()))
    assert [photo.format for photo in photos] == ["JPEG", "JPEG"] and channel.format == "PNG"
    values = np.sort(np.asarray(channel).reshape(-1, 4), axis=0)[:, 3]
    svg = decision_figure(inspection()).svg_file()
    assert svg.index(COLORS["faint"]) < svg.index("data:image/png"), "the ground would cover the map"
    assert channel.size == (2, 2) and values.tolist() == [0, 0, 128, 255]


def test_png_shows_positive_and_negative_channels() -> None:
    picture = Image.open(io.BytesIO(decision_figure(inspection()).png())).convert("RGB")
    colors = {color for _, color in picture.getcolors(1 << 24) or []}
    assert (176, 24, 127) in colors
    root = ElementTree.fromstring(decision_figure(inspection()).svg_file())
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert picture.size == (2 * width, 2 * height)


@pytest.mark.parametrize(("name", "other"), [("кот", "лис"), ("chaîne", "chaÿne"), ("猫", "犬")])
def test_non_ascii_names_use_a_font_with_their_glyphs(name: str, other: str) -> None:
    if name == "猫" and find_font(name) is None:
        pytest.skip(f"no font of this system has all of {name}")

    def pixels(label: str) -> Pixels:
        return np.asarray(Image.open(io.BytesIO(decision_figure(inspection(label=label)).png())))

    assert (pixels(name) != pixels(other)).any(), "boxes look the same"


def test_hostile_names_are_escaped() -> None:
    seen = inspection(label=EVIL, name="$\\frac$ & <b>\x1b.png")
    page = decision_page(seen, EVIL)
    assert "<script" not in page and "<b>\x1b" not in page
    assert "&lt;script&gt;" in page
    assert decision_figure(seen).png()


def layer(name: str, shape: tuple[int, ...], macs: int) -> GraphLayer:
    return GraphLayer(name, "Conv", (), name, shape, "float32", 10, macs)


def test_structure_has_a_bar_per_layer_and_names_the_resolution() -> None:
    layers = (layer("first <b>", (1, 8, 32, 32), 4_000_000), layer("last", (1, 512, 3, 3), 2_000_000))
    structure = GraphStructure(layers, (("image", "uint8", (1, 64, 64, 3)),), ())
    svg = str(structure_figure(structure, LayerTimes({"first <b>": 0.5, "last": 0.25}, 0.1, 1.0, False)))
    root = ElementTree.fromstring(svg)
    tips = [element.text for element in root.iter("title")]
    assert tips == [
        "first <b>: Conv to 1 × 8 × 32 × 32, 4.00 MMACs, 0.500 ms",
        "last: Conv to 1 × 512 × 3 × 3, 2.00 MMACs, 0.250 ms",
    ]
    shown = ["".join(item.itertext()) for item in root.iter("text")]
    assert {"32 × 32", "3 × 3"} <= set(shown) and "3 × 512" not in shown
    assert svg.count("var(--heat)") >= 2 and COLORS["heat"] not in svg
    assert not re.search(r"https?://", svg)
    assert structure_figure(GraphStructure((), structure.inputs, ()), LayerTimes({}, 0.0, 0.0, False)) is None


def test_export_summary_loads_no_drawing_library() -> None:
    modules = "kdedge.cli.export_summary, kdedge.pipelines.model_validation"
    code = f"import sys, {modules}; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
