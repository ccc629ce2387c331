"""Training commands, and the complete pipeline from images to an explained prediction."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file
from training_toys import CLASSES, ONE_THREAD, Outcome, kdedge, kdedge_command, metrics_of, write_scenes

from kdedge.cli.train import _following
from kdedge.data.dataset_options import DatasetOptions
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, LAST, METRICS, RECORD, is_run, read_run

TRAIN = ("--model", "small:resnet8", "--device", "cpu")


class TestTraining:
    def test_prints_progress_and_the_next_command(
        self, command: Callable[..., Outcome], scenes: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "my run [old]"
        outcome = command("train", scenes, *TRAIN, "--epochs", 2, "--batch-size", 16, "--out", out)
        assert outcome.code == 0, outcome.err
        assert outcome.out == "", "stdout is for data"
        lines = outcome.err.splitlines()
        assert "48 for training, 18 for validation, 3 classes" in lines[0]
        figures = metrics_of(out)
        for epoch in (1, 2):
            (line,) = [line for line in lines if line.startswith(f"epoch   {epoch}/2  ce ")]
            assert f"top-1 {figures[epoch - 1]['val_top1']:.1%}" in line
        assert any("my run [old], after" in line for line in lines), "brackets are not markup"
        assert lines[-2:] == [
            "No bundled student is smaller than resnet8, so there is nothing to distill into.",
            f"Next: kdedge export '{out}' --quantize",
        ]

    def test_schema_is_printed_when_training_starts(self, command: Callable[..., Outcome], tmp_path: Path) -> None:
        table, out = tmp_path / "answers.csv", tmp_path / "run"
        rows = [f"{number * 7 % 50}.5,{number * 7 % 50 > 25}" for number in range(60)]
        table.write_text("\n".join(["income [EUR],answer", *rows]))
        options = ("--epochs", 1, "--device", "cpu")
        trained = command("train", table, "--model", "mlp:4", "--target", "answer", "--out", out, *options, "--resume")
        assert trained.code == 0, trained.err
        assert "no run to resume" in trained.err
        assert trained.err.count("income") == 1 and trained.err.index("EUR") < trained.err.index("samples  ")
        rerun = ("--model", "mlp:4", "--target", "answer", "--out", out, *options, "--resume")
        resumed = command("train", table, *rerun)
        assert resumed.code == 0 and "income" not in resumed.err
        options += ("--teacher", out, "--student", "mlp:2", "--out", tmp_path / "student")
        refused = command("distill", table, "--target", "income", *options)
        assert refused.code == 2 and "predicts classes, but the targets of" in refused.err
        assert refused.err.count("\n") == 1, "the schema of other data is no help for this error"

    def test_unlabeled_images_are_counted_and_compared(
        self, command: Callable[..., Outcome], scenes: Path, teacher_run: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "more").mkdir()
        for shade in (10, 20, 30):
            Image.new("RGB", (32, 32), (shade, 0, 0)).save(tmp_path / "more" / f"{shade}.png")
        taught = ("--teacher", teacher_run, "--student", "small:resnet8", "--epochs", 1, "--device", "cpu")
        pattern, runs = tmp_path / "more" / "[12]0.png", [tmp_path / "labeled", tmp_path / "footage"]
        outcome = command("distill", scenes, *taught, "--unlabeled", pattern, "--every", "2s", "--out", runs[0])
        assert outcome.code == 0, outcome.err
        assert "48 labeled and 2 unlabeled for training" in outcome.err and "confidence" in outcome.err
        outcome = command("distill", tmp_path / "more", *taught, "--out", runs[1])
        assert outcome.code == 0, outcome.err
        assert "agreement" in outcome.err and "top-1" not in outcome.err
        assert outcome.err.splitlines()[-1] == f"Next: kdedge export {runs[1]} --quantize"
        outcome = command("compare", *runs, "-o", tmp_path / "page.html")
        assert outcome.code == 0, outcome.err
        assert "unlabeled" in outcome.err + outcome.out

    @pytest.mark.parametrize("every", ["0s", "2", "often"])
    def test_interval_that_is_no_duration(
        self, command: Callable[..., Outcome], scenes: Path, teacher_run: Path, every: str
    ) -> None:
        taught = ("--teacher", teacher_run, "--student", "small:resnet8", "--unlabeled", scenes)
        outcome = command("distill", scenes, *taught, "--every", every)
        assert outcome.code == 2 and "not a duration" in " ".join(outcome.err.split())

    @pytest.mark.parametrize(
        ("model", "flip", "by", "few", "ending"),
        [
            ("torchvision:resnet18", None, None, None, "--student resnet10w16"),
            ("small:resnet20", False, None, None, "--student resnet8 --no-flip"),
            ("small:resnet20", None, "^[a-z]+", None, "--student resnet8 --group-by '^[a-z]+'"),
            ("torchvision:resnet18", True, None, 50, "--student resnet10w16 --flip --samples-per-class 50"),
        ],
    )
    def test_next_command_matches_teacher_and_data(
        self,
        teacher_run: Path,
        tmp_path: Path,
        model: str,
        flip: bool | None,
        by: str | None,
        few: int | None,
        ending: str,
    ) -> None:
        record = read_run(teacher_run)
        save_file(build_model(ModelSpec(model, 3), 32).state_dict(), tmp_path / BEST)
        assert _following(record, "signs", tmp_path, flip, few, DatasetOptions(group_by=by)) == (
            f"Next: kdedge distill signs --teacher {tmp_path} {ending}"
        )

    def test_unreadable_files_are_reported_and_skipped(self, command: Callable[..., Outcome], tmp_path: Path) -> None:
        data = write_scenes(tmp_path / "data", train=6, val=2)
        folder = data / "train" / CLASSES[0]
        picture = folder / "00.png"
        (folder / "[bold]broken.png").write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
        (folder / "words.jpg").write_text("not an image")
        (folder / "void.png").write_bytes(b"")
        Image.open(folder / "01.png").convert("L").save(folder / "grey.png")
        outcome = command("train", data, *TRAIN, "--epochs", 1, "--out", tmp_path / "run")
        assert outcome.code == 0, outcome.err
        (warning,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
        assert warning.startswith("warning: 4 of 28 samples: ")
        assert "1 truncated ([bold]broken.png)" in warning
        assert "1 not an image (words.jpg)" in warning
        assert "1 empty (void.png)" in warning
        assert "1 grayscale" in warning
        assert "19 for training" in outcome.err
        assert is_run(tmp_path / "run")

    def test_complete_run_is_unchanged(self, command: Callable[..., Outcome], scenes: Path, teacher_run: Path) -> None:
        before = {path.name: path.read_bytes() for path in teacher_run.iterdir()}
        outcome = command("train", scenes, *TRAIN, "--epochs", 4, "--batch-size", 16, "--out", teacher_run, "--resume")
        assert outcome.code == 0, outcome.err
        assert "is complete after 4 epochs" in outcome.err
        assert {path.name: path.read_bytes() for path in teacher_run.iterdir()} == before

    @pytest.mark.parametrize(
        ("command_line", "message"),
        [
            (("train", "nowhere", "--model", "resnet8"), "There is no folder or table nowhere"),
            (("train", "empty", "--model", "resnet8"), "empty has no images"),
            (("train", "flat", "--model", "resnet8"), "flat has 1 images but no class folders"),
            (("train", "scenes", "--model", "resnet88"), "There is no model 'resnet88'"),
            (("distill", "scenes", "--teacher", "nowhere", "--student", "resnet8"), "There is no model 'nowhere'"),
            (("distill", "empty", "--teacher", "resnet8", "--student", "resnet8"), "empty has no images"),
            (("train", "scenes", "--model", "resnet8"), "taken already holds a run, which is complete"),
        ],
    )
    def test_argument_errors_come_before_an_existing_run(
        self,
        command: Callable[..., Outcome],
        scenes: Path,
        teacher_run: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        command_line: tuple[str, ...],
        message: str,
    ) -> None:
        """Neither another --out nor --resume would fix these errors."""
        monkeypatch.chdir(tmp_path)
        shutil.copytree(teacher_run, "taken")
        Path("scenes").symlink_to(scenes)
        Path("empty").mkdir()
        Path("flat").mkdir()
        Image.new("RGB", (32, 32)).save("flat/1.png")
        outcome = command(*command_line, "--out", "taken")
        assert outcome.code != 0
        assert outcome.err.startswith(f"error: {message}"), outcome.err

    def test_ctrl_c_prints_the_resume_command(self, scenes: Path, tmp_path: Path) -> None:
        command = kdedge_command("train", scenes, *TRAIN, "--epochs", 9999, "--out", tmp_path / "run")
        process = subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 240
        while not (tmp_path / "run" / METRICS).is_file() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 130
        assert f"kdedge {shlex.join(command[command.index('train') :])} --resume" in err
        assert err.endswith("interrupted\n")
        assert "Traceback" not in err


def test_missing_metric_is_a_dash(
    command: Callable[..., Outcome], scenes: Path, teacher_run: Path, exported_run: Path, tmp_path: Path
) -> None:
    """In the first epochs all maps of a student may be constant."""
    run = shutil.copytree(exported_run, tmp_path / "run")
    record = json.loads((run / RECORD).read_text())
    del record["result"]["best"]["val_map_pearson"]
    (run / RECORD).write_text(json.dumps(record))
    command_line = ("distill", scenes, "--teacher", teacher_run, "--student", "small:resnet8", "--out", run, "--resume")
    done = command(*command_line)
    assert done.code == 0
    best, last = (line for line in done.err.splitlines() if "best by validation" in line or "│ last" in line)
    assert "–" in best and f"{record['result']['last']['val_map_pearson']:.3f}" in last


@pytest.mark.slow
def test_complete_pipeline(
    command: Callable[..., Outcome], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train, distill, export, validate, run and explain; a new process validates the files of the earlier ones."""
    monkeypatch.chdir(tmp_path)

    def alone(*arguments: object) -> Outcome:
        result = kdedge(*arguments, cwd=tmp_path)
        return Outcome(result.returncode, result.stdout, result.stderr)

    def done(*arguments: object, by: Callable[..., Outcome] = command, codes: tuple[int, ...] = (0,)) -> Outcome:
        outcome = by(*arguments)
        assert outcome.code in codes, outcome.err
        assert "Traceback" not in outcome.err
        return outcome

    def followed(outcome: Outcome) -> str:
        return outcome.err.splitlines()[-1]

    trained = done("train", scenes, *TRAIN, "--epochs", 3, "--batch-size", 16)
    assert followed(trained) == "Next: kdedge export runs/teacher --quantize"
    distilled = done(
        *("distill", scenes, "--teacher", "runs/teacher", "--student", "small:resnet8", "--device", "cpu"),
        *("--epochs", 3, "--batch-size", 16),
    )
    assert followed(distilled) == "Next: kdedge export runs/student --quantize"
    run = tmp_path / "runs" / "student"
    assert {path.name for path in run.iterdir()} == {"run.json", METRICS, BEST, LAST}

    exported = done("export", "runs/student", "--quantize", by=alone)
    assert followed(exported) == "Next: kdedge validate runs/student"
    assert (run / "model.onnx").is_file() and (run / "model.int8.onnx").is_file()

    validated = done("validate", "runs/student", by=alone, codes=(0, 4))
    report = json.loads((run / "report" / "report.json").read_text())
    assert report["passed"] == (validated.code == 0)
    assert (run / "report" / "report.html").stat().st_size > 10_000
    assert len(validated.out.splitlines()) == len(report["checks"])
    if validated.code == 4:
        assert re.search(
            rf"of {len(report['checks'])} checks (failed|is inconclusive|are inconclusive).*; see ", followed(validated)
        )

    images = scenes / "val" / CLASSES[0]
    ran = done("run", "runs/student/model.int8.onnx", "--source", images, "--jsonl", "-", "-o", "seen")
    *predictions, last = [json.loads(line) for line in ran.out.splitlines()]
    assert last["summary"]["frames"] == len(predictions)
    assert len(predictions) == len(list((tmp_path / "seen").iterdir())) == 6
    assert {prediction["label"] for prediction in predictions} <= set(CLASSES)

    explained = done("explain", "runs/student/model.onnx", images, "--class", CLASSES[1], "-o", "why")
    assert len(explained.out.splitlines()) == len(list((tmp_path / "why").glob("*.png"))) == 6

    for failing in (["run", run / "model.onnx", "--source"], ["explain", run / "model.onnx"]):
        failed = command(*failing, tmp_path / "nowhere.png")
        assert failed.code == 5
        assert failed.err.splitlines()[-1].startswith("error: ")


def test_run_killed_before_its_record_restarts(command: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
    """The same command with `--resume` also starts a run that does not exist yet."""
    arguments = ("train", scenes, *TRAIN, "--epochs", 1, "--batch-size", 16, "--out", tmp_path / "run", "--resume")
    assert command(*arguments).code == 0
    assert len(metrics_of(tmp_path / "run")) == 1
    (tmp_path / "run" / "run.json").unlink()
    assert command(*arguments).code == 0
    assert len(metrics_of(tmp_path / "run")) == 1
