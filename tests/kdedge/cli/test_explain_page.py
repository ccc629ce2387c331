"""The page of `kdedge explain`."""

from pathlib import Path
from xml.etree import ElementTree

from foreign_toys import Command
from html_checks import Page
from PIL import Image


class TestExplainPage:
    def test_single_image_has_page_and_drawing(
        self, command: Command, tmp_path: Path, runnable: Path, photo: Path
    ) -> None:
        done = command("explain", runnable, photo, "-o", tmp_path)
        assert done.code == 0, done.err
        written = [Path(line.split("  ")[0]) for line in done.out.splitlines()]
        names = [f"scene <1>{suffix}" for suffix in (".png", ".html", ".svg", ".decision.png")]
        assert [path.name for path in written] == names
        Page.of(written[1])
        drawing = ElementTree.parse(written[2]).getroot()
        pictures = [item for item in drawing.iter() if item.tag.endswith("}image")]
        assert all(item.attrib["href"].startswith("data:image/") for item in pictures)
        texts = {"".join(item.itertext()) for item in drawing.iter() if item.tag.endswith("}text")}
        assert {"image", "8 × 8 map", "16 × 16 map"} <= texts
        _, _, width, height = map(float, drawing.attrib["viewBox"].split())
        with Image.open(written[3]) as picture:
            assert picture.size == (2 * width, 2 * height)

    def test_several_images_have_pages_only_on_request(
        self, command: Command, tmp_path: Path, runnable: Path, photo: Path
    ) -> None:
        for option, suffixes in (((), {".png"}), (("--page",), {".png", ".html", ".svg"})):
            out = tmp_path / f"out{len(suffixes)}"
            assert command("explain", runnable, photo, photo, "-o", out, *option).code == 0
            assert {path.suffix for path in out.iterdir()} == suffixes

    def test_page_can_be_disabled(self, command: Command, tmp_path: Path, runnable: Path, photo: Path) -> None:
        assert command("explain", runnable, photo, "-o", tmp_path, "--no-page").code == 0
        assert [path.suffix for path in tmp_path.iterdir()] == [".png"]
