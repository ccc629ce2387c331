"""Each example runs, in a folder with the files that it needs, and leaves what it promises."""

import ast
import runpy
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import soundfile
import torch
from PIL import Image

import kdedge
from kdedge.models.onnx_model import OnnxClassifier
from kdedge_export import exportable
from kdedge_export.onnx_graph.model_file import save_model
from kdedge_export.scenes import LABELS, render_scene
from kdedge_export.torch_export import export_graph
from kdedge_runtime import ImageInput, Metadata, Model

HERE = Path(__file__).parent
EXAMPLES = {path.stem for path in HERE.glob("*.py") if not path.stem.startswith("test_")}
FRONT_END = HERE.parents[2] / "shared" / "data" / "weights" / "google-speech-embedding-melspectrogram.onnx"
SIDE, CLASSES = 64, LABELS[:3]


@pytest.fixture(autouse=True)
def quick_exports(operators_listed_once: None) -> None:
    """Use fast exports for all networks."""


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an example in a folder."""
    monkeypatch.chdir(folder)
    runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")


def scenes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Render `count` images of each class: uint8 `[N, SIDE, SIDE, 3]`, int64 `[N]`."""
    rng = np.random.default_rng(0)
    targets = np.arange(len(CLASSES)).repeat(count)
    return np.stack([render_scene(CLASSES[target], rng, SIDE).image for target in targets]), targets


def save_arrays(folder: Path) -> None:
    """Write the arrays of twelve images of each class: `images.npy` and `targets.npy`."""
    images, targets = scenes(12)
    np.save(folder / "images.npy", images)
    np.save(folder / "targets.npy", targets)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 8, 3, 2), torch.nn.Conv2d(8, 8, 3, 2)
    return torch.nn.Sequential(
        *(first, torch.nn.ReLU(), second, torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, len(CLASSES))),
    )


def write_theirs(path: Path) -> None:
    """Write a classifier without a map, as PyTorch's exporter does."""
    torch.onnx.export(
        *(network().eval(), (torch.zeros(2, 3, SIDE, SIDE),), path),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )


def test_distilled_student_is_exported_validated_and_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, targets = scenes(8)
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        split = "val" if index % 4 == 3 else "train"
        folder = tmp_path / "data" / split / CLASSES[target]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    Image.fromarray(images[0]).save(tmp_path / "photo.png")
    run("distill_a_student", tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert "passed" in out and "failed" not in out
    assert Model.load(tmp_path / "runs" / "student" / "model.int8.onnx").has_map
    assert (tmp_path / "runs" / "student" / "model.report" / "report.html").is_file()
    assert (tmp_path / "explanations" / "photo.png").is_file()


def test_module_is_exported_quantized_and_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_arrays(tmp_path)
    run("export_a_module", tmp_path, monkeypatch)
    correlation = float(capsys.readouterr().out.split()[-1])
    assert 0.9 < correlation <= 1
    assert Model.load(tmp_path / "classifier.int8.onnx").metadata.quantization is not None


def test_student_of_another_loop_matches_maps_and_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_arrays(tmp_path)
    run("own_training_loop", tmp_path, monkeypatch)
    epochs = [float(line.split("mapall ")[1]) for line in capsys.readouterr().out.splitlines() if "mapall" in line]
    assert len(epochs) == 10 and epochs[-1] < epochs[0] / 2
    assert Model.load(tmp_path / "student.onnx").has_map


def test_file_of_another_framework_gets_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_theirs(tmp_path / "theirs.onnx")
    assert {item.name for item in onnx.load(tmp_path / "theirs.onnx").graph.output}.isdisjoint({"saliency_map"})
    run("explain_a_file", tmp_path, monkeypatch)
    model = Model.load(tmp_path / "ours.onnx")
    assert model.has_map and model.metadata.labels == ("circle", "square", "star")
    assert "hirescam" in capsys.readouterr().out


def test_image_is_classified_and_overlaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)
    wrapped = exportable(network(), spec)
    metadata = Metadata(labels=CLASSES, input=spec, outputs=wrapped.outputs)
    save_model(export_graph(wrapped).model, metadata, tmp_path / "model.onnx")
    (image, *_), _ = scenes(1)
    Image.fromarray(image).save(tmp_path / "photo.png")
    run("predict", tmp_path, monkeypatch)
    assert capsys.readouterr().out.split(",")[0] in CLASSES
    drawn = np.asarray(Image.open(tmp_path / "explained.png"))
    assert drawn.shape[1] > 1.5 * drawn.shape[0] and np.ptp(drawn.astype(int) @ [1, -1, 0]) > 0


def test_one_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    times = np.arange(8_000) / 8_000
    for label, hertz in {"no": 400, "yes": 2_000}.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(12):
            sound = 0.5 * np.sin(2 * np.pi * (hertz + 10 * number) * times)
            soundfile.write(tmp_path / "data" / label / f"{number}.wav", sound, 8_000)
    monkeypatch.chdir(tmp_path)
    trained = kdedge.train("data", "small:resnet8", epochs=4, device="cpu")
    shutil.copy(kdedge.export(trained).fp32, "model.onnx")
    shutil.copy("data/yes/0.wav", "yes.wav")
    run("predict_a_sound", tmp_path, monkeypatch)
    answer, shape = capsys.readouterr().out.splitlines()[-2:]
    label, score, start, end = answer.replace("(", "").replace(")", "").replace(",", "").split()
    assert label in ("yes", "no") and 0.5 <= float(score) <= 1 and float(start) == 0 < float(end)
    outputs = Model.load("model.onnx").metadata.outputs
    assert shape == str((outputs.map_height, outputs.map_width))


def test_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{number},{'abc'[number % 3]},{'yes' if number % 3 else 'no'}" for number in range(90)]
    for name in ("data.csv", "applications.csv"):
        (tmp_path / name).write_text("\n".join(["age [years],job,answer", *lines]) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    trained = kdedge.train("data.csv", "mlp:8", target="answer", epochs=20, device="cpu")
    shutil.copy(kdedge.export(trained).fp32, "model.onnx")
    run("predict_a_row", tmp_path, monkeypatch)
    answer, first, second, other = capsys.readouterr().out.splitlines()[-4:]
    assert answer.startswith("no ") and abs(float(other.split(":")[1])) < 1e-3, "there are no other columns"
    assert {ast.literal_eval(line)["column"] for line in (first, second)} == {"age", "job"}
    assert ast.literal_eval(first)["column"] == "job"


def test_corrected_rows_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="the page appends rows with pandas")
    monkeypatch.chdir(tmp_path)
    Path("credit.csv").write_text("job,age,answer\nclerk,031,yes\n")
    Path("more.csv").write_text("age,job,answer,town\n40.50,NA,no,Ulm\n")
    run("append_rows", tmp_path, monkeypatch)
    assert Path("credit-2.csv").read_text() == "job,age,answer,town\nclerk,031,yes,\nNA,40.50,no,Ulm\n"


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text("utf-8")
    assert {name for name in EXAMPLES if f'run("{name}"' in tested} == EXAMPLES != set()


@pytest.mark.data
def test_network_for_features_teaches_behind_its_front_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front end is the published one of the speech embedding, with 97 frames of 32 bands."""
    if not FRONT_END.exists():
        pytest.skip(f"the reference data are not at {FRONT_END.parent}")
    torch.manual_seed(0)
    classifier = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 5, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 24 * 7, 3)
    ).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"features": {0: "n"}, "logits": {0: "n"}}
        torch.onnx.export(
            classifier,
            (torch.zeros(2, 1, 97, 32),),
            tmp_path / "network.onnx",
            dynamo=False,
            input_names=["features"],
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=13,
        )
    shutil.copy(FRONT_END, tmp_path / "front_end.onnx")
    run("join_a_front_end", tmp_path, monkeypatch)
    teacher = OnnxClassifier.load(tmp_path / "teacher.onnx", modality="audio")
    sounds = torch.randn(2, 16_000)
    logits, _ = teacher(sounds)
    for sound, found in zip(sounds, logits, strict=True):
        (features,) = ort.InferenceSession(str(FRONT_END)).run(None, {"input": sound[None].numpy()})
        with torch.no_grad():
            expected = classifier(torch.from_numpy(features))[0]
        assert torch.allclose(found, expected, atol=1e-3) and expected.std() > 1e-2
