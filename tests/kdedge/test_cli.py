"""The command line as a user meets it: help at once, one sentence for what goes wrong, and the whole way."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from training_toys import CLASSES, ONE_THREAD, kdedge, kdedge_command, metrics_of, write_scenes

import kdedge as package
from kdedge.cli import app as module
from kdedge.cli import main
from kdedge.models.run_folder import BEST, LAST, METRICS, is_run
from kdedge_runtime import errors

VERBS = ("train", "distill", "export", "validate", "explain", "demo", "run")
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "cv2", "PIL", "timm")
TRAIN = ("--model", "small:resnet8", "--device", "cpu")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command's own entry point, in this process."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["kdedge", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as done:
            code = done.code or 0
        assert isinstance(code, int)
        return Outcome(code, *capfd.readouterr())

    return call


def assert_one_sentence(outcome: Outcome, code: int) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


class TestHelp:
    @pytest.mark.parametrize(
        "arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join
    )
    def test_it_loads_nothing_heavy(self, arguments: list[str]) -> None:
        program = (
            f"import sys; sys.argv = ['kdedge', *{arguments}]\n"
            "from kdedge.cli import main\n"
            "try: main()\n"
            f"finally: print('loaded:', *sorted({{*{HEAVY}}} & {{*sys.modules}}))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "loaded:"

    def test_it_names_every_verb(self, run: Callable[..., Outcome]) -> None:
        help_ = run("--help")
        assert help_.code == 0
        assert [line.split()[0] for line in help_.out.partition("Commands:\n")[2].splitlines() if line] == list(VERBS)

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_explains_itself(self, run: Callable[..., Outcome], verb: str) -> None:
        help_ = run(verb, "--help")
        assert help_.code == 0
        assert f"kdedge {verb}" in help_.out

    def test_no_arguments_are_a_call_for_help(self, run: Callable[..., Outcome]) -> None:
        outcome = run()
        assert outcome.code == 2
        assert "Usage: kdedge" in outcome.out + outcome.err

    def test_version(self, run: Callable[..., Outcome]) -> None:
        assert run("--version") == Outcome(0, f"kdedge {package.__version__}\n", "")


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["dream"],
            ["train"],
            ["train", "photos"],
            ["train", "photos", "--model", "resnet18", "--sise", "64"],
            ["train", "photos", "--model", "resnet18", "--size", "8"],
            ["train", "photos", "--model", "resnet18", "--lr", "0"],
            ["train", "photos", "--model", "resnet18", "--lr", "-0.1"],
            ["train", "photos", "--model", "resnet18", "--epochs", "0"],
            ["train", "photos", "--model", "resnet18", "--batch-size", "0"],
            ["train", "photos", "--model", "resnet18", "--seed", "-1"],
            ["train", "photos", "--model", "resnet18", "--seed", str(10**19)],
            ["train", "photos", "--model", "resnet18", "--output-stride", "0"],
            ["distill", "photos", "--student", "resnet18"],
            ["export", "resnet18", "--method", "magic"],
        ],
        ids=" ".join,
    )
    def test_what_cannot_be_parsed_is_told_without_a_traceback(
        self, run: Callable[..., Outcome], arguments: list[str]
    ) -> None:
        outcome = run(*arguments)
        assert outcome.code == 2
        assert "Error: " in outcome.err
        assert "Traceback" not in outcome.err


class TestErrors:
    @pytest.mark.parametrize("kind", errors.__all__)
    def test_each_kind_has_its_exit_code(
        self, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        codes = {"KdedgeError": 1, "MissingDependency": 3, "ValidationFailed": 4, "SourceError": 5}

        def fail(**_: object) -> None:
            raise getattr(errors, kind)("What happened. What to type.")

        monkeypatch.setattr(module, "app", fail)
        assert run() == Outcome(codes.get(kind, 2), "", "error: What happened. What to type.\n")

    @pytest.mark.parametrize(
        ("prepare", "complaint"),
        [
            (lambda root: None, "There is no folder"),
            (lambda root: root.mkdir(), "has no images"),
            (lambda root: write_scenes(root, CLASSES[:1], 2, 1), "has only one class"),
            (lambda root: (write_scenes(root, train=2, val=1) / "train" / "void").mkdir(), "without images: 'void'"),
            (
                lambda root: shutil.rmtree(write_scenes(root, train=2, val=1) / "val" / CLASSES[0]),
                "differ: 'bottle' only",
            ),
            (lambda root: root.write_bytes(b"PK"), "is a file, not a folder"),
        ],
        ids=["missing folder", "no images", "one class", "empty class", "unlike sides", "a file"],
    )
    def test_unusable_data(
        self, run: Callable[..., Outcome], tmp_path: Path, prepare: Callable[[Path], object], complaint: str
    ) -> None:
        prepare(tmp_path / "data")
        outcome = run("train", tmp_path / "data", *TRAIN, "--out", tmp_path / "run")
        assert_one_sentence(outcome, 2)
        assert complaint in outcome.err
        assert not (tmp_path / "run").exists()

    def test_an_unknown_model(self, run: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
        outcome = run("train", scenes, "--model", "resnet81", "--out", tmp_path / "run")
        assert_one_sentence(outcome, 2)
        assert "Did you mean torchvision:resnet18" in outcome.err

    def test_a_run_that_is_there_already(self, run: Callable[..., Outcome], scenes: Path, teacher_run: Path) -> None:
        outcome = run("train", scenes, *TRAIN, "--out", teacher_run)
        assert_one_sentence(outcome, 2)
        assert "--resume" in outcome.err and "--out" in outcome.err

    def test_nothing_to_resume(self, run: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
        assert_one_sentence(run("train", scenes, *TRAIN, "--out", tmp_path, "--resume"), 2)

    @pytest.mark.parametrize(
        "arguments",
        [["validate", "RUN"], ["explain", "nowhere.onnx", "a.png"], ["run", "nowhere.onnx", "--source", "a.png"]],
        ids=lambda arguments: arguments[0],
    )
    def test_no_model_file(self, run: Callable[..., Outcome], teacher_run: Path, arguments: list[str]) -> None:
        outcome = run(*(str(teacher_run) if word == "RUN" else word for word in arguments))
        assert_one_sentence(outcome, 2)
        assert "There is no model file" in outcome.err and "kdedge export" in outcome.err

    def test_a_teacher_that_does_not_exist(self, run: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
        outcome = run(
            "distill", scenes, "--teacher", tmp_path / "runs", "--student", "resnet8", "--out", tmp_path / "s"
        )
        assert_one_sentence(outcome, 2)

    def test_a_missing_package(
        self, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, scenes: Path, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        outcome = run("train", scenes, "--model", "timm:mobilenetv3_small_050", "--out", tmp_path / "run")
        assert_one_sentence(outcome, 3)
        assert "pip install timm" in outcome.err

    def test_a_folder_that_cannot_be_written(self, run: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        outcome = run("train", scenes, *TRAIN, "--epochs", 1, "--out", tmp_path / "file" / "run")
        assert outcome.code == 1
        assert outcome.err.splitlines()[-1].startswith(f"error: {tmp_path / 'file'}")
        assert "Traceback" not in outcome.err

    def test_in_a_process_of_its_own(self, tmp_path: Path) -> None:
        done = kdedge("train", "nowhere", *TRAIN, cwd=tmp_path)
        assert_one_sentence(Outcome(done.returncode, done.stdout, done.stderr), 2)


class TestRunner:
    """`kdedge run` is the device's own command."""

    def test_its_help_is_the_runtimes(self, run: Callable[..., Outcome]) -> None:
        help_ = run("run", "--help")
        assert help_.code == 0
        assert help_.out.startswith("usage: kdedge run [-h] --source SOURCE")

    def test_its_usage_errors_pass_through(self, run: Callable[..., Outcome]) -> None:
        outcome = run("run", "model.onnx", "--source", "0", "--opacity", "7")
        assert outcome.code == 2
        assert "kdedge run: error: argument --opacity" in outcome.err


class TestTraining:
    def test_it_says_what_it_does_and_what_comes_next(
        self, run: Callable[..., Outcome], scenes: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "my run [old]"
        outcome = run("train", scenes, *TRAIN, "--epochs", 2, "--batch-size", 16, "--out", out)
        assert outcome.code == 0, outcome.err
        assert outcome.out == "", "stdout is for data"
        lines = outcome.err.splitlines()
        assert "48 to train on, 18 to validate, 3 classes" in lines[0]
        figures = metrics_of(out)
        for epoch in (1, 2):
            (line,) = [line for line in lines if line.startswith(f"epoch   {epoch}/2  ce ")]
            assert f"top-1 {100 * figures[epoch - 1]['val_top1']:.1f} %" in line
        assert any("my run [old], after" in line for line in lines), "brackets are no markup"
        assert lines[-1] == f"Next: kdedge distill {scenes} --teacher '{out}' --student resnet10w16"

    def test_bad_files_are_named_in_one_line_and_training_goes_on(
        self, run: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        data = write_scenes(tmp_path / "data", train=6, val=2)
        folder = data / "train" / CLASSES[0]
        picture = folder / "00.png"
        (folder / "[bold]broken.png").write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
        (folder / "words.jpg").write_text("not a picture")
        (folder / "void.png").write_bytes(b"")
        Image.open(folder / "01.png").convert("L").save(folder / "grey.png")
        outcome = run("train", data, *TRAIN, "--epochs", 1, "--out", tmp_path / "run")
        assert outcome.code == 0, outcome.err
        (warning,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
        assert warning.startswith("warning: 4 of 28 files: ")
        assert "1 truncated ([bold]broken.png)" in warning
        assert "1 not an image (words.jpg)" in warning
        assert "1 empty (void.png)" in warning
        assert "1 greyscale" in warning
        assert "19 to train on" in outcome.err
        assert is_run(tmp_path / "run")

    def test_a_finished_run_is_left_alone(self, run: Callable[..., Outcome], scenes: Path, teacher_run: Path) -> None:
        before = {path.name: path.read_bytes() for path in teacher_run.iterdir()}
        outcome = run("train", scenes, *TRAIN, "--epochs", 4, "--batch-size", 16, "--out", teacher_run, "--resume")
        assert outcome.code == 0, outcome.err
        assert "is complete: all 4 epochs are done" in outcome.err
        assert {path.name: path.read_bytes() for path in teacher_run.iterdir()} == before

    def test_ctrl_c_says_how_to_go_on(self, scenes: Path, tmp_path: Path) -> None:
        command = kdedge_command("train", scenes, *TRAIN, "--epochs", 300, "--out", tmp_path / "run")
        process = subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not (tmp_path / "run" / METRICS).is_file() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "--resume" in err
        assert err.endswith("interrupted\n")
        assert "Traceback" not in err


@pytest.mark.slow
def test_the_whole_way(scenes: Path, tmp_path: Path) -> None:
    """Train, distill, export, validate, run, explain: each a command of its own."""

    def done(*arguments: object, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        result = kdedge(*arguments, cwd=tmp_path)
        assert result.returncode in codes, result.stderr
        assert "Traceback" not in result.stderr
        return result

    def followed(result: subprocess.CompletedProcess[str]) -> str:
        return result.stderr.splitlines()[-1]

    trained = done("train", scenes, *TRAIN, "--epochs", 8, "--batch-size", 16)
    assert followed(trained) == f"Next: kdedge distill {scenes} --teacher runs/teacher --student resnet10w16"
    distilled = done(
        *("distill", scenes, "--teacher", "runs/teacher", "--student", "small:resnet8", "--device", "cpu"),
        *("--epochs", 8, "--batch-size", 16),
    )
    assert followed(distilled) == "Next: kdedge export runs/student --quantize"
    run = tmp_path / "runs" / "student"
    assert {path.name for path in run.iterdir()} == {"run.json", METRICS, BEST, LAST}

    exported = done("export", "runs/student", "--quantize")
    assert followed(exported) == "Next: kdedge validate runs/student"
    assert (run / "model.onnx").is_file() and (run / "model.int8.onnx").is_file()

    validated = done("validate", "runs/student", codes=(0, 4))
    report = json.loads((run / "report" / "report.json").read_text())
    assert report["passed"] == (validated.returncode == 0)
    assert (run / "report" / "report.html").stat().st_size > 10_000
    assert len(validated.stdout.splitlines()) == len(report["checks"])
    if validated.returncode == 4:
        assert "checks failed, see" in followed(validated)

    pictures = scenes / "val" / CLASSES[0]
    ran = done("run", "runs/student/model.int8.onnx", "--source", pictures, "--jsonl", "-", "-o", "seen")
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(answers) == len(list((tmp_path / "seen").iterdir())) == 6
    assert {answer["label"] for answer in answers} <= set(CLASSES)

    explained = done("explain", "runs/student/model.onnx", pictures, "--class", CLASSES[1], "-o", "why")
    assert len(explained.stdout.splitlines()) == len(list((tmp_path / "why").glob("*.png"))) == 6

    for failing in (
        ("run", "runs/student/model.onnx", "--source", "nowhere.png"),
        ("explain", "runs/student/model.onnx", "nowhere.png"),
    ):
        failed = done(*failing, codes=(5,))
        assert followed(failed).startswith("error: ")
