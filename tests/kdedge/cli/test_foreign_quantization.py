"""Files of other frameworks on the command line: quantized, and validated without a PyTorch model."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from foreign_toys import SIDE, Command, Small

from kdedge_runtime import Model


class TestValidate:
    """Validation of a file of another framework, without a PyTorch model."""

    def test_int8_is_compared_with_fp32(self, command: Command, pair: Path, scenes: Path) -> None:
        done = command("validate", pair, "--data", scenes, "--out", pair.parent / "report")
        assert done.code in (0, 4), done.err  # few images leave bounds inconclusive
        report = json.loads((pair.parent / "report" / "report.json").read_text("utf-8"))
        assert set(report["models"]) == {"fp32", "int8"} and report["has_labels"]
        assert report["comparisons"]["int8"]["reference"] == "fp32"
        assert report["comparisons"]["int8"]["agreement"] > 0.9
        assert report["comparisons"]["int8"]["maps"]["pearson_mean"] > 0.98
        outcomes = {check["key"]: check["outcome"] for check in report["checks"]}
        assert outcomes["fp32_agreement"] == outcomes["fp32_map_error"] == "not applicable"
        assert outcomes["int8_input"] == outcomes["int8_labels"] == outcomes["fp32_default_class"] == "passed"
        assert report["calibration"].keys() == {"fp32", "int8"} and report["robustness"]["rows"]
        network = sum(parameter.numel() for parameter in Small().parameters())
        assert (
            network <= report["footprints"]["fp32"]["parameters"] <= network + 10
        )  # mean and std of the preprocessing
        assert "There is no PyTorch model" in done.err and "[ ] fp32 top-1 agreement" in done.out
        assert (pair.parent / "report" / "report.html").is_file()

    def test_unlabeled_images(self, command: Command, pair: Path, scenes: Path, tmp_path: Path) -> None:
        for number, picture in enumerate(sorted((scenes / "val").rglob("*.png"))):
            (tmp_path / "flat").mkdir(exist_ok=True)
            (tmp_path / "flat" / f"{number}.png").write_bytes(picture.read_bytes())
        command("validate", pair, "--data", tmp_path / "flat", "--quick", "--out", tmp_path / "report")
        report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
        assert not report["has_labels"] and report["models"]["fp32"]["accuracy"] is None
        assert any(check["key"] == "int8_agreement" for check in report["checks"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ((), "its samples are unknown. Give them: --data DIR"),
            (("--data", "SCENES", "--weights", "WEIGHTS"), "not from a PyTorch model. Remove --weights"),
            (("--data", "SCENES", "--model", "net.py:make"), "not from a PyTorch model. Remove --model"),
        ],
        ids=["no data", "weights", "model"],
    )
    def test_invalid_arguments(
        self,
        command: Command,
        tmp_path: Path,
        runnable: Path,
        scenes: Path,
        options: tuple[str, ...],
        message: str,
    ) -> None:
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(b"")
        named = {"SCENES": scenes, "WEIGHTS": weights}
        done = command("validate", runnable, *(named.get(word, word) for word in options))
        assert done.code == 2 and message in done.err

    def test_unnamed_classes(self, command: Command, tmp_path: Path, theirs: Path, scenes: Path) -> None:
        numbered = tmp_path / "numbered.onnx"
        assert command("export", theirs, "-o", numbered, "--mean", "0.5", "--std", "0.5").code == 0
        done = command("validate", numbered, "--data", scenes)
        assert done.code == 2 and "--labels FILE" in done.err


class TestQuantize:
    """int8 export of a file of another framework, with that file as the reference."""

    FRONT = ("--mean", "0.5", "--std", "0.5")

    def test_predictions_and_maps_match_the_file(
        self, command: Command, tmp_path: Path, theirs: Path, scenes: Path
    ) -> None:
        ours = tmp_path / "ours.onnx"
        done = command("export", theirs, "-o", ours, *self.FRONT, "--quantize", "--data", scenes)
        assert done.code == 0, done.err
        assert re.search(r"held out: agreement \d+\.\d%, map Pearson 0\.\d+ on \d+ training samples", done.err)
        positions = [done.err.index(text) for text in ("held out", "recommended on machines", "Next: kdedge run")]
        assert positions == sorted(positions)
        fp32, int8 = Model.load(ours), Model.load(tmp_path / "ours.int8.onnx")
        note = int8.metadata.quantization
        assert note is not None and note["calibration_samples"] > 0 and note["device"] == "generic"
        assert note["held_out"]["map_pearson"] > 0.98
        assert int8.metadata.labels == fp32.metadata.labels and int8.metadata.outputs == fp32.metadata.outputs
        images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
        exact, rounded = fp32.predict(images, 1), int8.predict(images, 1)
        assert np.abs(exact.logits - rounded.logits).max() < 0.1 * np.ptp(exact.logits)
        assert exact.saliency_map is not None and rounded.saliency_map is not None
        assert np.corrcoef(exact.saliency_map.ravel(), rounded.saliency_map.ravel())[0, 1] > 0.98
        nodes = onnx.load(tmp_path / "ours.int8.onnx").graph.node
        dequantized = {item.output[0] for item in nodes if item.op_type == "DequantizeLinear"}
        assert all(set(item.input[:2]) <= dequantized for item in nodes if item.op_type == "Conv")

    def test_old_opset_with_fixed_batch(self, command: Command, tmp_path: Path, scenes: Path) -> None:
        torch.manual_seed(0)
        path = tmp_path / "old.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(Small().eval(), (torch.randn(1, 3, SIDE, SIDE),), path, dynamo=False, opset_version=9)
        options = ("--quantize", "--data", scenes, "--device", "raspberry-pi-5")
        done = command("export", path, "-o", tmp_path / "ours.onnx", *self.FRONT, *options)
        assert done.code == 0, done.err
        note = Model.load(tmp_path / "ours.int8.onnx").metadata.quantization
        assert note is not None and note["device"] == "raspberry-pi-5" and note["held_out"]["map_pearson"] > 0.98
        labels = tmp_path / "labels.txt"
        labels.write_text("\n".join(sorted(path.name for path in (scenes / "val").iterdir())))
        ours = tmp_path / "named.onnx"
        assert command("export", path, "-o", ours, *self.FRONT, "--labels", labels).code == 0
        done = command("validate", ours, "--data", scenes, "--out", tmp_path / "report")
        assert done.code in (0, 4), done.err
        report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
        assert report["faithfulness"] is not None and report["robustness"] is not None

    def test_missed_goal_leaves_no_file(self, command: Command, tmp_path: Path, theirs: Path, scenes: Path) -> None:
        (tmp_path / "ours.int8.onnx").write_bytes(b"from an earlier export")
        options = ("--quantize", "--data", scenes, "--min-map-correlation", "0.99999999")
        done = command("export", theirs, "-o", tmp_path / "ours.onnx", *self.FRONT, *options)
        assert done.code == 4 and "No int8 file was written" in done.err
        assert (tmp_path / "ours.onnx").is_file() and not (tmp_path / "ours.int8.onnx").exists()

    def test_unquantizable_files(self, command: Command, tmp_path: Path, theirs: Path, scenes: Path) -> None:
        options = ("--quantize", "--data", scenes)
        done = command("export", theirs, "-o", tmp_path / "map.onnx", *options)
        assert done.code == 2 and "Add --mean MEAN --std STD" in done.err
        assert command("export", theirs, "-o", tmp_path / "a.onnx", *self.FRONT, *options).code == 0
        done = command("export", tmp_path / "a.int8.onnx", "-o", tmp_path / "b.onnx", *options)
        assert done.code == 2 and "is already quantized" in done.err
