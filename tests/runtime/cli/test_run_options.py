"""Options of `kdedge-run`: arguments, explanations, regions and limits."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kdedge_runtime import __version__
from kdedge_runtime.cli.main import build_parser, main
from kdedge_runtime.devices import detection


def _lines(path: Path) -> list[dict]:
    """Return the frame lines, without the final summary."""
    *frames, last = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert list(last) == ["summary"]
    assert last["summary"]["frames"] == len(frames)
    return frames


def test_profile_configures_onnxruntime_and_options_override(model_path: Path, photos: Path, capfd) -> None:
    arguments = [str(model_path), "--source", str(photos), "--device", "raspberry-pi-4"]
    assert main(arguments) == 0
    assert "provider CPU (requested: cpu) · 3 threads" in capfd.readouterr().err
    assert main([*arguments, "--threads", "1"]) == 0
    assert "provider CPU (requested: cpu) · 1 thread ·" in capfd.readouterr().err
    assert main([str(model_path), "--source", str(photos)]) == 0
    assert "provider CPU (requested: none) · all threads" in capfd.readouterr().err


def test_threads_spin_only_beside_others(
    model_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    profile = detection.find_profile("raspberry-pi-4")
    spinning = replace(profile, onnxruntime=replace(profile.onnxruntime, spinning=True))
    monkeypatch.setattr(detection, "find_profile", lambda _: spinning)
    for threads, expected in (("1", "· 1 thread ·"), ("2", "· 2 threads, spinning ·")):
        assert main([str(model_path), "--source", str(photos), "--device", "raspberry-pi-4", "--threads", threads]) == 0
        assert expected in capfd.readouterr().err


def test_skipped_explanations_have_a_reason_in_jsonl(model_path: Path, video: Path, tmp_path: Path, capfd) -> None:
    cv2 = pytest.importorskip("cv2")
    arguments = [str(model_path), "--source", str(video), "--jsonl", str(tmp_path / "a"), "-o", str(tmp_path / "o.mp4")]
    assert main([*arguments, "--cadence", "every=4"]) == 0
    lines = _lines(tmp_path / "a")
    assert [line["explained"] for line in lines[:5]] == ["red", None, None, None, "red"]
    assert [line["skip_reason"] for line in lines[:5]] == [None, "cadence", "cadence", "cadence", None]
    assert [line["heat"] is None for line in lines[:5]] == [False, True, True, True, False]
    assert all(line["label"] in ("red", "blue") for line in lines)
    assert "6 frames explained, 18 skipped by cadence" in capfd.readouterr().err
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 24, "the length of the source"


def test_method_explains_model_without_map(
    write_model: Callable[..., Path], photos: Path, tmp_path: Path, capfd
) -> None:
    plain = write_model(method="none")
    arguments = [str(plain), "--source", str(photos), "--jsonl", str(tmp_path / "a"), "--class", "red"]
    arguments += ["--loop", "--max-frames", "12"]
    assert main([*arguments, "--method", "occlusion"]) == 0
    printed = capfd.readouterr().err
    assert "map by occlusion" in printed
    assert "explanation " in printed, "separate row in the table"
    first = _lines(tmp_path / "a")[0]
    assert (first["label"], first["explained"]) == ("red", "red")
    # Center of the red square.
    assert first["heat"]["cx"] == pytest.approx(44 / 64, abs=0.1)
    assert first["heat"]["cy"] == pytest.approx(20 / 64, abs=0.1)


def test_folder_can_be_looped(model_path: Path, photos: Path, tmp_path: Path) -> None:
    arguments = [str(model_path), "--source", str(photos), "--jsonl", str(tmp_path / "a"), "--loop"]
    assert main([*arguments, "--max-frames", "7"]) == 0
    assert [line["label"] for line in _lines(tmp_path / "a")] == ["red", "green", "blue"] * 2 + ["red"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["m.onnx", "--source", "0", "--threads", "0"],
        ["m.onnx", "--source", "0", "-o", ""],
        ["m.onnx", "--source", ""],
        ["m.onnx", "--source", "0", "--opacity", "2"],
        ["m.onnx", "--source", "0", "--opacity", "half"],
        ["m.onnx", "--source", "0", "--max-frames", "few"],
        ["m.onnx", "--source", "0", "--frames", "some"],
        ["m.onnx", "--source", "0", "--min-fps", "0"],
        ["m.onnx", "--source", "0", "--budget-ms", "-1"],
    ],
)
def test_invalid_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments, prog="kdedge run")
    assert exit_.value.code == 2
    assert "kdedge run: error:" in capsys.readouterr().err


def test_help_and_version_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = build_parser("kdedge run").format_help()
    options = "--source --frames --jsonl --output --show --view --threads --class --provider --opacity --max-frames "
    options += "--loop --cadence --min-fps --method --budget-ms --device"
    for option in options.split():
        assert option in text
    assert "%(prog)s" not in text
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_class_and_frame_limit_are_applied(model_path: Path, video: Path, tmp_path: Path) -> None:
    arguments = [str(model_path), "--source", str(video), "--jsonl", str(tmp_path / "a"), "--class", "2"]
    assert main([*arguments, "--max-frames", "3", "--threads", "1", "--provider", "CPU"]) == 0
    assert [(line["label"], line["explained"]) for line in _lines(tmp_path / "a")] == [("red", "blue")] * 3


def test_zero_opacity_leaves_image_unchanged(model_path: Path, tmp_path: Path, red_spot) -> None:
    Image.fromarray(red_spot).resize((320, 320), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    for opacity, out in (("0", "clear"), ("1", "covered")):
        main([str(model_path), "--source", str(tmp_path / "a.png"), "-o", str(tmp_path / out), "--opacity", opacity])
    spot = (220, 100)
    clear, covered = (Image.open(tmp_path / out / "a.jpg").getpixel(spot) for out in ("clear", "covered"))
    assert clear[0] > 240 > 30 > clear[1]
    assert covered[1] > 150, "full heat is pale yellow"


def test_expanded_pattern_error_suggests_quotes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for picture in pictures:
        picture.touch()
    with pytest.raises(SystemExit, match="2"):
        main(["model.onnx", "--source", *map(str, pictures)])
    printed = capsys.readouterr().err
    assert "Quote a pattern" in printed and len(printed.splitlines()) == 1


def test_regions_to_jsonl_and_one_overlay_per_frame(model_path: Path, photos: Path, tmp_path: Path) -> None:
    regions = ["--crop", "spot=0.5,0,1,0.5", "--crop", "0,32,32,64"]
    outputs = ["--jsonl", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / "out")]
    assert main([str(model_path), "--source", str(photos), *regions, *outputs]) == 0
    *lines, last = (json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines())
    assert [line["region"] for line in lines] == ["spot", "region-2"] * 3
    assert [line["label"] for line in lines if line["region"] == "spot"] == ["red", "green", "blue"]
    assert last["summary"]["frames"] == 3
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("regions", [["0.5,0,0.4,1"], ["nan,0,1,1"], ["a=0,0,1,1", "a=0,0,1,1"]])
def test_invalid_region_is_reported_before_the_camera_opens(
    model_path: Path, regions: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    options = [word for region in regions for word in ("--crop", region)]
    assert main([str(model_path), "--source", "/dev/video99", *options]) == 2
    error = capfd.readouterr().err
    assert "--crop" in error or "regions" in error
    assert "video99" not in error


def test_region_beyond_the_frame_names_its_size(
    model_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model_path), "--source", str(photos), "--crop", "0,0,640,360"]) == 2
    assert "64 × 64 px" in capfd.readouterr().err
