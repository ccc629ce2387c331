"""`kdedge inspect` on the command line."""

from pathlib import Path

import pytest
from foreign_toys import CLASSES, Command
from html_checks import Page


class TestInspect:
    def test_foreign_file(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("inspect", theirs, "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        header, *layers = done.out.splitlines()
        assert header.split() == ["layer", "operator", "output", "parameters", "MMACs", "ms"]
        convolutions = [line.split() for line in layers if " Conv " in line]
        assert [(positions[2], positions[3]) for positions in convolutions] == [
            ("1×8×16×16", "224"),
            ("1×12×8×8", "876"),
        ]
        page = Page.of(tmp_path / "page.html")
        assert page.titles == ["Compute and latency per layer", "Classifier weights", "Layers"]
        assert page.rows["layers"] == len(layers)

    def test_image_attribution(self, command: Command, tmp_path: Path, runnable: Path, photo: Path) -> None:
        done = command("inspect", runnable, photo, "--class", "cup", "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        assert "explained: cup" in done.err
        assert "8 × 8  gradient × activation: half of the attribution in" in done.err
        page = Page.of(tmp_path / "page.html")
        assert page.titles[:2] == ["Attribution from coarse to fine", "Channel contributions per class"]
        text = (tmp_path / "page.html").read_text()
        assert "bottle &amp; cap" in text and "scene &lt;1&gt;.png" in text
        assert page.rows["features"] == CLASSES

    def test_run_folder(self, command: Command, tmp_path: Path, exported_run: Path, photo: Path) -> None:
        done = command("inspect", exported_run, photo, "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        Page.of(tmp_path / "page.html")

    def test_quantized_file(self, command: Command, tmp_path: Path, exported_run: Path, photo: Path) -> None:
        done = command("inspect", exported_run / "model.int8.onnx", photo, "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        assert "QuantizeLinear" in done.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.onnx"], "There is no model file nowhere.onnx"),
            (["THEIRS", "PHOTO"], "has no preprocessing for images"),
            (["OURS", "--class", "cup"], "Give an image too"),
            (["OURS", "PHOTO", "--class", "spoon"], "no class 'spoon'"),
            (["OURS", "-o", "page.svg"], "must end in .html"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_arguments(
        self, command: Command, theirs: Path, runnable: Path, photo: Path, arguments: list[str], message: str
    ) -> None:
        places = {"THEIRS": theirs, "OURS": runnable, "PHOTO": photo}
        done = command("inspect", *(places.get(word, word) for word in arguments))
        assert done.code == 2
        assert message in done.err

    def test_folder_without_model(self, command: Command, tmp_path: Path) -> None:
        done = command("inspect", tmp_path)
        assert done.code == 2 and f"kdedge export {tmp_path}" in done.err
