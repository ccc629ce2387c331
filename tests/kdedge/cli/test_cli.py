"""Command line behavior: fast help, and single-sentence errors."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from training_toys import CLASSES, ONE_THREAD, Outcome, kdedge, write_scenes

import kdedge as package
from kdedge.cli import app as module
from kdedge_runtime import errors

VERBS = (
    "demo",
    "train",
    "distill",
    "export",
    "validate",
    "run",
    "explain",
    "inspect",
    "compare",
    "bundle",
    "web",
    "bench",
    "doctor",
    "devices",
    "feedback",
)
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "cv2", "PIL", "timm", "matplotlib", "jinja2")
TRAIN = ("--model", "small:resnet8", "--device", "cpu")


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
    def test_help_imports_no_heavy_packages(self, arguments: list[str]) -> None:
        program = (
            f"import sys; sys.argv = ['kdedge', *{arguments}]\n"
            "from kdedge.cli import main\n"
            "try: main()\n"
            f"finally: print('loaded:', *sorted({{*{HEAVY}}} & {{*sys.modules}}))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "loaded:"

    def test_help_lists_all_commands(self, command: Callable[..., Outcome]) -> None:
        help_ = command("--help")
        assert help_.code == 0
        lines = [line for line in help_.out.partition("Commands:\n")[2].splitlines() if line]
        assert [line.split()[0] for line in lines] == list(VERBS)
        assert not [line for line in lines if line.endswith("...")], "a summary is cut off"

    @pytest.mark.parametrize("verb", VERBS)
    def test_each_command_has_help(self, command: Callable[..., Outcome], verb: str) -> None:
        help_ = command(verb, "--help")
        assert help_.code == 0
        assert f"kdedge {verb}" in help_.out

    def test_no_arguments_print_help(self, command: Callable[..., Outcome]) -> None:
        outcome = command()
        assert outcome.code == 2
        assert "Usage: kdedge" in outcome.out + outcome.err

    def test_version(self, command: Callable[..., Outcome]) -> None:
        assert command("--version") == Outcome(0, f"kdedge {package.__version__}\n", "")


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
    def test_usage_errors_have_no_traceback(self, command: Callable[..., Outcome], arguments: list[str]) -> None:
        outcome = command(*arguments)
        assert outcome.code == 2
        assert "Error: " in outcome.err
        assert "Traceback" not in outcome.err


class TestErrors:
    @pytest.mark.parametrize("kind", errors.__all__)
    def test_exit_code_of_each_error_type(
        self, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        codes = {
            "KdedgeError": 1,
            "MissingDependency": 3,
            "ValidationFailed": 4,
            "SourceError": 5,
            "UnreadableSample": 5,
        }

        def fail(**_: object) -> None:
            fault = ("damaged",) if kind == "UnreadableSample" else ()
            raise getattr(errors, kind)("Something happened. Type this.", *fault)

        monkeypatch.setattr(module, "app", fail)
        assert command() == Outcome(codes.get(kind, 2), "", "error: Something happened. Type this.\n")

    @pytest.mark.parametrize(
        ("prepare", "message"),
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
        ids=["missing folder", "no images", "one class", "empty class", "different classes", "a file"],
    )
    def test_unusable_datasets(
        self, command: Callable[..., Outcome], tmp_path: Path, prepare: Callable[[Path], object], message: str
    ) -> None:
        prepare(tmp_path / "data")
        outcome = command("train", tmp_path / "data", *TRAIN, "--out", tmp_path / "run")
        assert_one_sentence(outcome, 2)
        assert message in outcome.err
        assert not (tmp_path / "run").exists()

    def test_unknown_model(self, command: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
        outcome = command("train", scenes, "--model", "resnet81", "--out", tmp_path / "run")
        assert_one_sentence(outcome, 2)
        assert "small:resnet8," in outcome.err
        assert "torchvision:resnet18" in outcome.err

    def test_existing_run(self, command: Callable[..., Outcome], scenes: Path, teacher_run: Path) -> None:
        outcome = command("train", scenes, *TRAIN, "--out", teacher_run)
        assert_one_sentence(outcome, 2)
        assert f"--out {teacher_run}-2" in outcome.err and "--resume" not in outcome.err

    @pytest.mark.parametrize(
        "arguments",
        [["validate", "RUN"], ["explain", "nowhere.onnx", "a.png"], ["run", "nowhere.onnx", "--source", "a.png"]],
        ids=lambda arguments: arguments[0],
    )
    def test_missing_model_file(self, command: Callable[..., Outcome], teacher_run: Path, arguments: list[str]) -> None:
        outcome = command(*(str(teacher_run) if word == "RUN" else word for word in arguments))
        assert_one_sentence(outcome, 2)
        assert re.search(r"model file.*kdedge export", outcome.err)

    def test_missing_teacher(self, command: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
        outcome = command(
            "distill", scenes, "--teacher", tmp_path / "runs", "--student", "resnet8", "--out", tmp_path / "s"
        )
        assert_one_sentence(outcome, 2)

    def test_missing_package(
        self, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, scenes: Path, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        outcome = command("train", scenes, "--model", "timm:mobilenetv3_small_050", "--out", tmp_path / "run")
        assert_one_sentence(outcome, 3)
        assert "pip install timm" in outcome.err

    def test_unwritable_folder(self, command: Callable[..., Outcome], scenes: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        outcome = command("train", scenes, *TRAIN, "--epochs", 1, "--out", tmp_path / "file" / "run")
        assert outcome.code == 1
        assert outcome.err.splitlines()[-1].startswith(f"error: {tmp_path / 'file'}")
        assert "Traceback" not in outcome.err

    def test_separate_process(self, tmp_path: Path) -> None:
        done = kdedge("train", "nowhere", *TRAIN, cwd=tmp_path)
        assert_one_sentence(Outcome(done.returncode, done.stdout, done.stderr), 2)


NOWHERE = (
    "distill nowhere --teacher TEACHER --student resnet8",
    "distill SCENES --teacher nowhere/run --student resnet8 --out out",
    "distill SCENES --teacher resnet18 --teacher-weights nowhere.pth --student resnet8 --out out",
    "train nowhere --model resnet18 --out out",
    "train SCENES --model nets.py:make --out out",
    "train SCENES --model resnet8 --weights nowhere.safetensors --out out",
    "train SCENES --model resnet8 --out TEACHER",
    "export runs/nowhere",
    "export TEACHER --device no-device",
    "export TEACHER --quantize --data nowhere",
    "export nowhere.onnx",
    "validate nowhere",
    "validate TEACHER",
    "validate FILE --data nowhere",
    "explain nowhere.onnx p.png",
    "explain FILE nowhere.png",
    "inspect nowhere.onnx",
    "inspect FILE nowhere.png",
    "compare TEACHER nowhere",
    "bundle nowhere",
    "bench nowhere.onnx",
    "bench nowhere",
    "run nowhere.onnx --source 0",
    "web nowhere.onnx",
)
LOOKING = """
import sys
from kdedge.cli import main

for line in sys.stdin.read().splitlines():
    sys.argv = ["kdedge", *line.split("\\t")]
    code = 0
    try:
        main()
    except SystemExit as done:
        code = done.code
    print(f"{'torch' in sys.modules} {code} {line}")
"""


def test_missing_inputs_are_reported_before_torch_is_imported(
    scenes: Path, teacher_run: Path, exported_run: Path, tmp_path: Path
) -> None:
    """Missing files are reported before the slow torch import; commands on model files never import torch."""
    places = {"SCENES": scenes, "TEACHER": teacher_run, "FILE": exported_run / "model.onnx"}
    places["PICTURE"] = next((scenes / "val").rglob("*.png"))
    looking = ("explain FILE PICTURE", "inspect FILE PICTURE")
    lines = ["\t".join(str(places.get(word, word)) for word in case.split()) for case in (*NOWHERE, *looking)]
    command = [sys.executable, "-c", LOOKING]
    done = subprocess.run(
        command, input="\n".join(lines), cwd=tmp_path, env=ONE_THREAD, capture_output=True, text=True, check=True
    )
    found = [line for line in done.stdout.splitlines() if line.startswith(("True ", "False "))]
    assert [line.split(" ", 2)[2] for line in found] == lines
    assert [line for line in found if line.startswith("True ")] == []
    codes = [int(line.split()[1]) for line in found]
    assert set(codes[: len(NOWHERE)]) <= {2, 5} and set(codes[len(NOWHERE) :]) == {0}, done.stderr
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == len(NOWHERE), done.stderr


class TestRunner:
    """`kdedge run` wraps the runtime's command."""

    def test_help_is_the_runtimes(self, command: Callable[..., Outcome]) -> None:
        help_ = command("run", "--help")
        assert help_.code == 0
        assert help_.out.startswith("usage: kdedge run [-h]")
        assert "--source SOURCE" in help_.out

    def test_usage_errors_are_the_runtimes(self, command: Callable[..., Outcome]) -> None:
        outcome = command("run", "model.onnx", "--source", "0", "--opacity", "7")
        assert outcome.code == 2
        assert "kdedge run: error: argument --opacity" in outcome.err
