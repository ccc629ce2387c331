"""`kdedge export MODEL.onnx` on the command line: options, messages and times."""

import json
import re
from pathlib import Path

import onnx
import pytest
from foreign_toys import Command, Small, exported_by_torch

from kdedge_runtime import Model
from kdedge_runtime.util import timing


class TestFromOnnx:
    def test_foreign_file_becomes_a_runnable_model(
        self, command: Command, tmp_path: Path, theirs: Path, photo: Path
    ) -> None:
        labels = tmp_path / "labels.txt"
        labels.write_text("bottle\ncup\nfork\n")
        ours = tmp_path / "ours.onnx"
        options = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--labels", labels)
        done = command("export", theirs, "-o", ours, *options)
        assert done.code == 0, done.err
        assert done.out == ""
        assert "[✓] original outputs are unchanged" in done.err
        assert "map: HiResCAM, matches finite differences" in done.err
        assert "8 × 8 map, GAP+Linear head" in done.err
        assert re.search(
            r"cost of the map: 1\.\d+ × the MACs and ([1-9]\d*\.\d+ × the|no measurable) latency", done.err
        )
        assert done.err.endswith(f"Next: kdedge run {ours} --source 0 --view 8080\n")
        model = Model.load(ours)
        assert model.metadata.labels == ("bottle", "cup", "fork")
        lines = tmp_path / "lines.jsonl"
        run = command("run", ours, "--source", photo, "--jsonl", lines)
        assert run.code == 0, run.err
        assert json.loads(lines.read_text().splitlines()[-1])

    def test_missing_preprocessing_is_reported(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("export", theirs, "-o", tmp_path / "ours.onnx")
        assert done.code == 0
        assert "(bit-exact)" in done.err
        assert "preprocessing" in done.err and "--mean 0.5 --std 0.5" in done.err
        run = command("run", tmp_path / "ours.onnx", "--source", "a.png")
        assert run.code == 2 and "no kdedge metadata" in run.err

    def test_default_output_is_next_to_the_file(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        copy = tmp_path / "copy.onnx"
        copy.write_bytes(theirs.read_bytes())
        assert command("export", copy).code == 0
        assert (tmp_path / "copy.explained.onnx").is_file()

    def test_file_with_a_map_is_copied_with_a_message(self, command: Command, tmp_path: Path, runnable: Path) -> None:
        done = command("export", runnable, "-o", tmp_path / "again.onnx")
        assert done.code == 0
        assert "already has a saliency map" in done.err
        assert (tmp_path / "again.onnx").read_bytes() == runnable.read_bytes()

    def test_preprocessing_can_be_added_later(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
        assert command("export", theirs, "-o", first).code == 0
        done = command("export", first, "-o", second, "--mean", "0.5", "--std", "0.5")
        assert done.code == 0, done.err
        assert "map: HiResCAM, as in the original file" in done.err
        assert Model.load(second).has_map

    @pytest.mark.parametrize(
        ("front", "arguments", "message"),
        [
            pytest.param(front, arguments, message, id=f"{front}, {' '.join(arguments)}")
            for front in ("with a front", "without")
            for arguments, message in (
                (["--target-layer", "x"], "Remove --target-layer, --method and --head"),
                (["--method", "gradcam"], "Remove --target-layer, --method and --head"),
                (["--head", "output"], "Remove --target-layer, --method and --head"),
                (["--resize", "squash"], "Remove --resize"),
                (["--method", "reciprocam"], "Remove --target-layer, --method and --head"),
                (["--mean", "0.5", "--std", "0.5"], "Remove --mean and --std"),
                (["--labels", "THREE"], "Remove --labels"),
                (["--size", "64"], "Remove --size"),
                (["--labels", "THREE", "--size", "32"], "Remove --labels and --size"),
            )
            if front == "with a front" or "--mean" not in arguments  # preprocessing can be added later
        ],
    )
    def test_options_without_effect_are_rejected(
        self,
        command: Command,
        tmp_path: Path,
        runnable: Path,
        theirs: Path,
        front: str,
        arguments: list[str],
        message: str,
    ) -> None:
        finished, again = runnable, tmp_path / "again.onnx"
        (tmp_path / "three.txt").write_text("a\nb\nc\n")
        if front == "without":
            finished = tmp_path / "mapped.onnx"
            assert command("export", theirs, "-o", finished).code == 0
        typed = [str(tmp_path / "three.txt") if word == "THREE" else word for word in arguments]
        done = command("export", finished, "-o", again, *typed)
        assert done.code == 2 and message in done.err
        assert not again.exists()

    def test_target_layer_from_inspect_is_accepted(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        listed = command("inspect", theirs, "-o", tmp_path / "page.html").out.splitlines()
        relu = [line.split()[0] for line in listed if " Relu " in line][-1]
        done = command("export", theirs, "--target-layer", relu, "-o", tmp_path / "ours.onnx")
        assert done.code == 0, done.err
        (tensor,) = next(node.output for node in onnx.load(theirs).graph.node if node.name == relu)
        assert tensor != relu and f"head, target layer {tensor}" in done.err

    def test_reciprocam_prints_its_cost(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("export", theirs, "--method", "reciprocam", "-o", tmp_path / "ours.onnx")
        assert done.code == 0
        assert "map: ReciproCAM" in done.err and "once per map position" in done.err

    def test_explicit_method_has_no_fallback(self, command: Command, tmp_path: Path) -> None:
        path = exported_by_torch(Small(averages_the_largest=True), tmp_path / "largest.onnx")
        ours = tmp_path / "ours.onnx"
        refused = command("export", path, "--method", "gradcam", "-o", ours)
        assert refused.code == 2 and not ours.exists()
        assert "Grad-CAM needs the derivative of TopK" in refused.err
        assert "Remove --method to use ReciproCAM" in refused.err
        unnamed = command("export", path, "-o", ours)
        assert unnamed.code == 0, unnamed.err
        assert "map: ReciproCAM (TopK is not differentiable here)" in unnamed.err

    def test_missing_class_names_are_noted(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("export", theirs, "-o", tmp_path / "o.onnx", "--mean", "0", "--std", "1/255")
        assert "0 to 2. Add names with --labels FILE" in done.err
        assert Model.load(tmp_path / "o.onnx").metadata.input.std == (1 / 255,) * 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--mean", "0.5"], "both --mean and --std"),
            (["--bgr"], "both --mean and --std"),
            (["--mean", "0.5", "--std", "0"], "--std 0 is not a valid channel value"),
            (["--mean", "1,2", "--std", "1"], "--mean 1,2 is not a valid channel value"),
            (["--mean", "grey", "--std", "1/0"], "--mean grey is not"),
            (
                ["--mean", "123,116,103", "--std", "58"],
                "it is --mean 0.4824,0.4549,0.4039, and --std 58 becomes --std 0.2",
            ),
            (["--quantize"], "--data DIR"),
            (["--data", "pictures"], "There is no folder or table pictures"),
            (
                ["--quantize", "--data", "pictures", "--min-map-correlation", "1"],
                "--min-map-correlation must be a correlation",
            ),
            (["--weights", "w.pth"], "Remove --weights"),
            (["--method", "none"], "Remove --method"),
            (["--target-layer", "nowhere"], "has no tensor 'nowhere'"),
            (["--labels", "nowhere.txt"], "nowhere.txt cannot be read"),
            (["--labels", "THREE"], "--labels needs a file that kdedge can run"),
            (["--resize", "squash"], "--resize needs a file that kdedge can run"),
            (["--crop-fraction", "1.5", "--mean", "0", "--std", "1"], "--crop-fraction 1.5 is out of range"),
            (["--crop-fraction", "0.9", "--resize", "squash"], "--crop-fraction needs --resize crop"),
            (["--head", "nowhere"], "has no classification head 'nowhere'. Its heads are: output"),
            (["--size", "64"], "accepts only images of 32 × 32 px"),
            (["-o", "model.pt"], "must end in .onnx"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_arguments(
        self, command: Command, tmp_path: Path, theirs: Path, arguments: list[str], message: str
    ) -> None:
        three = tmp_path / "three.txt"
        three.write_text("a\nb\nc\n")
        done = command("export", *(three if word == "THREE" else word for word in arguments), theirs)
        assert done.code == 2
        error = done.err.splitlines()[-1]  # after the progress lines of a log
        assert error.startswith("error: ") and message in error
        assert not theirs.with_suffix(".explained.onnx").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Missing argument"),
            (["resnet18", "--mean", "0.5"], "--mean needs an ONNX file"),
            (["resnet18", "--method", "reciprocam"], "needs an ONNX file"),
            (["nowhere.onnx"], "There is no model file nowhere.onnx"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_missing_arguments(self, command: Command, arguments: list[str], message: str) -> None:
        done = command("export", *arguments)
        assert done.code == 2
        assert message in done.err


class TestTimes:
    """Figures measured while other programs ran are marked."""

    @pytest.mark.parametrize("waiting", [0.0, 1000.0], ids=["idle", "busy"])
    def test_busy_machine_is_reported(
        self, command: Command, tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch, waiting: float
    ) -> None:
        monkeypatch.setattr(timing.os, "getloadavg", lambda: (waiting, 0.0, 0.0))
        monkeypatch.setattr(timing, "_MIN_SHARE", 0.0)
        done = command("export", theirs, "-o", tmp_path / "o.onnx", "--mean", "0", "--std", "1/255")
        assert done.code == 0, done.err
        assert ("using this machine" in done.err) == (waiting > 0)
        assert re.search(r"cost of the map: .* × the MACs", done.err)
        assert re.search(r"cost of uint8 input: (\d+\.\d\d × the|no measurable) latency", done.err)
        page = tmp_path / "page.html"
        listed = command("inspect", theirs, "-o", page)
        assert ("using this machine" in listed.err) == (waiting > 0)
        assert ("while the machine was busy" in page.read_text()) == (waiting > 0)

    def test_preprocessing_is_measured_for_any_input_name(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        model = onnx.load(theirs)
        (own,) = (value.name for value in model.graph.input)
        model.graph.input[0].name = "image"
        for item in model.graph.node:
            item.input[:] = ["image" if name == own else name for name in item.input]
        onnx.save(model, tmp_path / "image.onnx")
        done = command("export", tmp_path / "image.onnx", "--mean", "0.5", "--std", "0.5")
        assert "cost of uint8 input" in done.err

    def test_file_without_preprocessing_has_no_preprocessing_cost(
        self, command: Command, tmp_path: Path, theirs: Path
    ) -> None:
        assert "uint8 input" not in command("export", theirs, "-o", tmp_path / "o.onnx").err

    @pytest.mark.parametrize("has_preprocessing", [True, False], ids=["with mean", "without mean"])
    def test_data_fit_familiarity(
        self, command: Command, tmp_path: Path, theirs: Path, scenes: Path, has_preprocessing: bool
    ) -> None:
        ours = tmp_path / "ours.onnx"
        extra = ["--mean", "0.5", "--std", "0.5"] if has_preprocessing else []
        done = command("export", theirs, "-o", ours, "--data", scenes, *extra)
        assert done.code == 0, done.err
        if not has_preprocessing:
            assert "--data" in done.err and "is not used" in done.err
            return
        stored = Model.load(ours).metadata.familiarity
        assert stored is not None and stored.threshold is None
        assert "18" in str(stored.why_not) and "59" in done.err, "too few validation images"
