"""Charts are deterministic, self-contained, colored by the page, and safe with hostile names."""

import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kdedge_export.html.charts import COLORS, Chart, chart_style
from kdedge_export.html.palette import PALETTE

EVIL = "</title><script>alert(1)</script> $\\frac{1}$ & \x00\x1b\ud800"


@chart_style()
def bars(name: str = "bars") -> Chart:
    chart = Chart(300, 200, name)
    axes = chart.axes()
    for number, bar in enumerate(axes.bar([1, 2], [3, 4], color=COLORS["heat"])):
        chart.tag(bar, f"{name} {number}", class_="bar", data_run=str(number))
    axes.set_title(name)
    axes.plot([1, 2], [3, 4], "o", color=COLORS["run-0"])
    return chart


def svg(chart: Chart) -> str:
    return str(chart.svg())


@pytest.mark.parametrize("name", ["bars", EVIL])
def test_svg_is_well_formed_and_loads_nothing(name: str) -> None:
    drawn = svg(bars(name))
    root = ElementTree.fromstring(drawn)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"].startswith(name[:8])
    assert "script" not in {element.tag for element in root.iter()} and "style" not in {e.tag for e in root.iter()}
    assert not re.findall(r"https?://|@import|url\((?!#)|<!DOCTYPE|<\?xml", drawn)
    assert not re.findall("[\x00-\x08\x0b-\x1f\ud800-\udfff]", drawn)
    titles = [element.text or "" for element in root.iter("title")]
    assert [title[-1] for title in titles] == ["0", "1"] and all("$" in title for title in titles if name == EVIL)
    marked = [element for element in root.iter() if element.get("class") == "bar"]
    assert [element.get("data-run") for element in marked] == ["0", "1"]


def test_equal_charts_have_equal_bytes() -> None:
    assert svg(bars()) == svg(bars())
    assert bars().png() == bars().png() and bars().svg_file() == bars().svg_file()


def test_colors_follow_the_page_and_a_file_has_its_own() -> None:
    assert len({light for light, _ in PALETTE.values()}) == len(PALETTE)
    inline = svg(bars())
    assert "var(--heat)" in inline and "var(--run-0)" in inline and COLORS["heat"] not in inline
    alone = bars().svg_file()
    assert COLORS["heat"] in alone and COLORS["paper"] in alone and "var(" not in alone
    ElementTree.fromstring(alone)


def test_names_are_unique_in_a_page_of_several_charts() -> None:
    names = [re.findall(r' id="([^"]+)"', svg(bars(name))) for name in ("one", "two")]
    assert names[0] and not set(names[0]) & set(names[1])


def test_picture_has_two_pixels_per_css_pixel() -> None:
    picture = Image.open(io.BytesIO(bars(EVIL).png()))
    assert picture.size == (600, 400) and not picture.info.get("Software")
    assert np.ptp(np.asarray(picture.convert("L"))) > 100


@pytest.mark.parametrize("module", ["kdedge_export.validation", "kdedge_export.quantization"])
def test_package_loads_no_drawing_library_until_it_draws(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'matplotlib', 'jinja2'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
