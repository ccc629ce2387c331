"""Drawings are equal as SVG and PNG."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kdedge.pipelines.model_inspection import ImageInspection
from kdedge.reports.pages.decision_figure import decision_drawing
from kdedge.reports.pages.vector_drawing import Drawing, DrawnArrow, DrawnImage, DrawnMap, DrawnText, Item
from kdedge_export.inspection.attribution import Attribution
from kdedge_export.inspection.layer_attribution import AttributionStage, LayerAttribution
from kdedge_runtime.drawing.fonts import find_font
from kdedge_runtime.util.arrays import Pixels

MARGIN = 24
RED = np.full((4, 4, 3), (200, 30, 30), np.uint8)


def pixels(*items: Item) -> np.ndarray:
    """Render a drawing of 60 × 50 as PNG at two pixels per unit, without its margin."""
    picture = Image.open(io.BytesIO(Drawing(60, 50, "", items).png()))
    assert picture.format == "PNG" and picture.size == (2 * (60 + 2 * MARGIN), 2 * (50 + 2 * MARGIN))
    return np.asarray(picture)[2 * MARGIN : -2 * MARGIN, 2 * MARGIN : -2 * MARGIN].astype(int)


def inked(*items: Item) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the area that differs from the background, in units."""
    rows, columns = np.nonzero(np.abs(pixels(*items) - pixels()).max(axis=2) > 40)
    left, top, right, bottom = (float(edge) / 2 for edge in (columns.min(), rows.min(), columns.max(), rows.max()))
    return round(left), round(top), round(right), round(bottom)


def elements(*items: Item, standalone: bool = False) -> list[ElementTree.Element]:
    drawing = ElementTree.fromstring(Drawing(60, 50, "two <signs>", items).svg(standalone=standalone))
    assert drawing.attrib["aria-label"] == "two <signs>"
    return [item for item in drawing.iter() if item is not drawing]


def test_image_fills_its_square() -> None:
    assert inked(DrawnImage(10, 20, 16, RED)) == (10, 20, 26, 36)
    assert (pixels(DrawnImage(10, 20, 16, RED))[42:70, 22:50] == RED[0, 0]).all()
    (image,) = (item for item in elements(DrawnImage(10, 20, 16, RED)) if item.tag.endswith("image"))
    assert (image.attrib["x"], image.attrib["y"], image.attrib["width"], image.attrib["height"]) == (
        *("10", "20", "16", "16"),
    )


def test_raster_has_sharp_edges_and_transparency() -> None:
    positions = np.array([[[255, 0, 0, 255], [0, 0, 255, 0]]] * 2, np.uint8)
    found = pixels(DrawnMap(10, 10, 16, positions, "a hint"))
    assert (found[30:40, 24:36] == (255, 0, 0)).all()
    assert (found[30:40, 36:48] == found[30, 40]).all() and (found[30, 40] > 230).all()
    hints = [item.text for item in elements(DrawnMap(10, 10, 16, positions, "a hint")) if item.tag.endswith("title")]
    assert hints == ["a hint"]


def test_text_is_on_its_baseline_followed_by_the_note() -> None:
    left, top, right, bottom = inked(DrawnText(5, 30, "HH"))
    assert left in (5, 6) and bottom in (29, 30) and top > 15
    assert inked(DrawnText(5, 30, "HH", after="HH"))[2] > right + 8
    texts = [item for item in elements(DrawnText(5, 30, "a < b", "title", after="&", hint="why")) if "text" in item.tag]
    assert "".join(texts[0].itertext()) == "whya < b&"


def test_missing_glyphs_are_replaced() -> None:
    np.testing.assert_array_equal(pixels(DrawnText(0, 30, "14 × 3 −2")), pixels(DrawnText(0, 30, "14 x 3 -2")))


@pytest.mark.parametrize(("name", "other"), [("кот", "лис"), ("chaîne", "chaÿne")])
def test_non_ascii_names_use_a_font_with_their_glyphs(name: str, other: str) -> None:
    if find_font(name) is None:
        pytest.skip(f"no font of this system has all of {name}")
    assert (pixels(DrawnText(0, 30, name)) != pixels(DrawnText(0, 30, other))).any(), "boxes look the same"


def test_arrow_reaches_its_end() -> None:
    left, top, right, bottom = inked(DrawnArrow(10, 25, 20))
    assert (left, right) == (10, 30) and top < 25 < bottom


def test_only_a_standalone_drawing_has_a_background() -> None:
    grounds = [
        [item.tag for item in elements(standalone=alone)].count("{http://www.w3.org/2000/svg}rect")
        for alone in (True, False)
    ]
    assert grounds == [1, 0]


def test_attribution_figure_shows_the_evaluated_resolution_and_shift() -> None:
    saliency_map = np.zeros((4, 4), np.float32)
    saliency_map[1:3, 1:3] = 1.0

    def drawn(shift: tuple[float, float]) -> tuple[list[DrawnText], Pixels]:
        evidence = Attribution(saliency_map, (), np.ones(1), None, shift)
        decision = LayerAttribution(0, ((0, 1.0),), (AttributionStage("features", (8, 8), evidence),), {})
        items = decision_drawing(ImageInspection("a.png", np.full((64, 64, 3), 128, np.uint8), decision, ("a",))).items
        _, picture = (item.pixels for item in items if isinstance(item, DrawnImage))
        return [item for item in items if isinstance(item, DrawnText)], picture

    words, moved = drawn((-0.25, -0.25))
    assert any(item.text == "8 × 8 map" and "evaluated at 4 × 4" in item.after for item in words)
    _, still = drawn((0.0, 0.0))
    heat = [np.abs(picture.astype(int) - 128).sum(axis=2) for picture in (still, moved)]
    centers = [float((one.sum(axis=0) * np.arange(one.shape[1])).sum() / one.sum()) for one in heat]
    assert centers[1] == pytest.approx(centers[0] - 0.25 / 4 * moved.shape[1], rel=0.05)
