"""`kdedge export --quantize`: rejected options, and printed latency and goals."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from training_toys import Outcome

from kdedge.cli.export_summary import print_export
from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.model_export import ExportResult, export_model
from kdedge_export.metrics.confidence import samples_needed
from kdedge_export.quantization import FidelityGoal
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile

Command = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-map-correlation", "0.98"], "--min-map-correlation 0.98 needs --quantize"),
        (["--max-drop", "0.5"], "--max-drop 0.5 needs --quantize"),
        (["--quantize", "--min-map-correlation", "1"], "below 1, such as 0.98; got 1."),
        (["--quantize", "--min-map-correlation", "98"], "below 1, such as 0.98; got 98."),
        (["--quantize", "--max-drop", "-1"], "from 0 to 100, such as 0.5; got -1."),
        (["--quantize", "--max-drop", "nan"], "from 0 to 100, such as 0.5; got nan."),
        (["--quantize", "--min-map-correlation", "nan"], "below 1, such as 0.98; got nan."),
        (["--quantize", "--min-map-correlation", "0.9", "--method", "none"], "--method none exports none"),
    ],
)
def test_invalid_goals_are_rejected(command: Command, arguments: list[str], message: str) -> None:
    outcome = command("export", "small:resnet8", *arguments)
    assert outcome.code == 2 and message in outcome.err, outcome.err


def test_missed_goal_prints_the_tradeoff_and_exits_with_4(command: Command, exported_run: Path, tmp_path: Path) -> None:
    shutil.copy(exported_run / "model.int8.onnx", tmp_path / "m.int8.onnx")  # left by an earlier export
    outcome = command(
        "export", str(exported_run), "--quantize", "--min-map-correlation", "0.9999999", "-o", str(tmp_path / "m.onnx")
    )
    assert outcome.code == 4, outcome.err
    assert f"{tmp_path / 'm.int8.onnx'} from an earlier export was removed" in outcome.err
    assert "fp32 layers" in outcome.err and "map Pearson" in outcome.err
    assert "6 of 7 layers in fp32" in outcome.err
    assert (tmp_path / "m.onnx").is_file() and not (tmp_path / "m.int8.onnx").exists()
    assert (tmp_path / "m.tradeoff.svg").read_text(encoding="utf-8").startswith("<svg ")


def test_int8_file_of_a_different_model_is_removed(command: Command, exported_run: Path, tmp_path: Path) -> None:
    output, int8 = tmp_path / "m.onnx", tmp_path / "m.int8.onnx"
    model = onnx.load(exported_run / "model.int8.onnx")
    metadata = Model.load(exported_run / "model.int8.onnx").metadata
    elsewhere = replace(metadata.outputs.display, typical_contrast=1.0)  # as rounded on another machine
    changed = replace(metadata, outputs=replace(metadata.outputs, display=elsewhere))
    onnx.helper.set_model_props(model, changed.to_props())
    onnx.save(model, int8)
    content = int8.read_bytes()
    again = command("export", str(exported_run), "-o", str(output))
    assert again.code == 0 and "removed" not in again.err
    assert int8.read_bytes() == content
    otherwise = command("export", str(exported_run), "--method", "layercam", "-o", str(output))
    assert otherwise.code == 0, otherwise.err
    assert f"{int8} from an earlier export was removed: it has other weights or another map" in otherwise.err
    assert not int8.exists()
    int8.write_bytes(b"not a model")
    damaged = command("export", str(exported_run), "-o", str(output))
    assert damaged.code == 0 and not int8.exists(), damaged.err


def test_met_goal_marks_the_chosen_candidate(command: Command, exported_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    outcome = command(
        "export", str(exported_run), "--quantize", "--min-map-correlation", "0.9", "--max-drop", "20", "-o", str(output)
    )
    assert outcome.code == 0, outcome.err
    assert (
        "measured on 16 training samples that were not used for calibration (one sample is 6.2 points)" in outcome.err
    )
    assert "→" in outcome.err and "calibration: " in outcome.err and "held out: agreement" in outcome.err
    assert "(exact sums)" in outcome.err and "latency on this machine" in outcome.err
    assert output.with_suffix(".int8.onnx").is_file() and output.with_suffix(".tradeoff.svg").is_file()


@pytest.fixture(scope="module")
def exported(exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    output = tmp_path_factory.mktemp("file") / "m.onnx"
    return export_model(str(exported_run), output=output, precisions=["int8"], profile=load_profile("generic"))


def with_int8(exported: ExportResult, **changes: object) -> ExportResult:
    """Return the result with changed facts of its int8 file."""
    changed = replace(exported.quantized["int8"], **changes)  # type: ignore[arg-type]
    return replace(exported, quantized={"int8": changed})


@pytest.mark.parametrize(
    ("int8_ms", "speedup", "recommended"),
    [
        (2.0, "int8 2.00 ms (faster, 2.00× as fast)", "m.int8.onnx"),
        (3.9, "(no gain, 1.03× as fast)", "m.onnx"),
        (4.1, "(no gain, 0.98× as fast)", "m.onnx"),
        (8.0, "(SLOWER, 0.50× as fast)", "m.onnx"),
    ],
)
def test_faster_file_is_recommended(
    exported: ExportResult,
    exported_run: Path,
    int8_ms: float,
    speedup: str,
    recommended: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    note = exported.quantized["int8"].note
    timed = {**note, "latency_ms": {"fp32": 4.0, "int8": int8_ms, "machine": "a machine", "threads": 1}}
    result = with_int8(exported, note=timed)
    print_export(result, Artifacts.open(str(exported_run)), None, None)
    printed = capsys.readouterr().err
    assert speedup in printed
    assert result.fastest == exported.fp32.with_name(recommended)
    assert f"recommended on machines like this one: {result.fastest}" in printed
    assert f"Next: kdedge run {result.fastest} --source" in printed
    assert np.isfinite(note["held_out"]["map_pearson"])


@pytest.mark.parametrize(
    ("drop_points", "map_pearson", "images", "warned"),
    [
        (55.0, 0.99, 128, "int8 loses 55.0 points of accuracy (1 allowed by kdedge validate). To keep layers in fp32"),
        (0.0, 0.61, 128, "int8 maps correlate at 0.610 (0.98 required by kdedge validate). To keep layers in fp32"),
        (0.0, 0.99, 128, None),
        (6.25, 0.99, 16, None),  # a single image
    ],
)
def test_int8_loss_warns_and_suggests_a_goal(
    exported: ExportResult,
    drop_points: float,
    map_pearson: float,
    images: int,
    warned: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = exported.quantized["int8"].tradeoff
    assert found is not None
    chosen = found.chosen
    fidelity = replace(chosen.fidelity, accuracy=0.4, drop_points=drop_points, map_pearson=map_pearson)
    lost = replace(found, chosen=replace(chosen, fidelity=fidelity), samples=images)
    note = {**exported.quantized["int8"].note, "latency_ms": {"fp32": 4.0, "int8": 1.0}}
    result = with_int8(exported, tradeoff=lost, note=note)
    print_export(result, Artifacts.open("small:resnet8"), None, None)
    printed = capsys.readouterr().err
    if warned is None:
        assert "warning" not in printed and result.fastest == result.quantized["int8"].path
    else:
        assert f"warning: {warned}: --min-map-correlation 0.98 --max-drop 0.5" in printed
        assert result.fastest == result.fp32 and f"{result.fp32}; int8 would fail validation" in printed


@pytest.mark.parametrize(
    ("drop_points", "most", "goal", "verdict_text"),
    [
        (
            0.2,
            1.3,
            0.5,
            "inconclusive: a loss of at most 0.5 points of accuracy is not confirmed; 0.2 on these samples, up to 1.3",
        ),
        (0.2, 0.4, 0.5, None),
        (0.2, 1.3, None, None),
    ],
)
def test_inconclusive_drop_reports_the_samples_needed(
    exported: ExportResult,
    drop_points: float,
    most: float,
    goal: float | None,
    verdict_text: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = exported.quantized["int8"].tradeoff
    assert found is not None
    chosen = found.chosen
    fidelity = replace(chosen.fidelity, accuracy=0.9, drop_points=drop_points, most_drop_points=most)
    chosen = replace(chosen, fidelity=fidelity)
    tradeoff = replace(found, points=(chosen,), chosen=chosen, samples=512, goal=FidelityGoal(max_drop=goal))
    print_export(with_int8(exported, tradeoff=tradeoff), Artifacts.open("small:resnet8"), None, None)
    printed = " ".join(capsys.readouterr().err.split())
    if verdict_text is None:
        assert "inconclusive" not in printed
    else:
        needed = samples_needed(512, drop_points, most, 0.5, worst=100.0)
        assert f"{verdict_text} at 95% confidence; about {needed:,} samples needed to confirm" in printed
