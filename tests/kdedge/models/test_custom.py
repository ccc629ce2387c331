"""Custom networks: loaded from a file, rebuilt from a run, and rejected if invalid."""

import hashlib
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training_toys import tiny_config

from kdedge.models.code_trust import allow_typed
from kdedge.models.model_names import canonical_name
from kdedge.models.model_registry import build_model, head_tensors, make_spec, pretrained_input
from kdedge.models.run_folder import BEST, RunRecord, read_run, write_run
from kdedge.models.trained_model import load_trained
from kdedge.models.weight_files import load_state
from kdedge.pipelines.model_export import export_model
from kdedge.training.checkpoint import save_weights
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image import ImageInput

NETS = """
from torch import nn

def make_model(num_classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )

def needs_argument(num_classes):
    return make_model(num_classes)

def forwards(**options):
    return make_model(**options)

def always_seven():
    return make_model(7)

def described():
    model = make_model()
    model.pretrained_cfg = {"input_size": (3, 48, 40), "mean": (0.5, 0.4, 0.3), "crop_pct": 0.9}
    return model

def badly_described():
    model = make_model()
    model.pretrained_cfg = {"mean": 0.5}
    return model

def no_module():
    return "resnet18"

def broken():
    raise RuntimeError("out of luck")

def no_logits():
    return nn.Conv2d(3, 8, 3)

def one_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 48 * 48, 4))

CONSTANT = 3
"""


@pytest.fixture(autouse=True)
def typed_by_the_user(tmp_path: Path) -> None:
    """Allow the files that these tests name, in the folder itself and its neighbors."""
    for folder in ("", "teacher", "student", "nets"):
        for name in ("nets.py", "bad.py", "json.py"):
            allow_typed(f"{tmp_path / folder / name}:make_model")


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


class TestName:
    def test_name_is_valid_from_any_folder(self, nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(nets.parent)
        assert canonical_name("nets.py:make_model") == canonical_name(f"{nets}:make_model") == f"{nets}:make_model"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nowhere.py:make_model", r"no file .*nowhere\.py\. Expected a Python file with a function make_model"),
            ("nets.py:make_modle", r"nets\.py has no function make_modle\. It has make_model, needs_argument"),
            ("nets.py:CONSTANT", "has no function CONSTANT"),
            ("nets.py", r"has no function name\. Expected FILE\.py:FUNCTION, such as nets\.py:make_model"),
            ("nets.py:", "has no function name"),
        ],
    )
    def test_missing_arguments(self, nets: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
        monkeypatch.chdir(nets.parent)
        with pytest.raises(UsageError, match=message):
            canonical_name(name)

    @pytest.mark.parametrize("content", ["def make_model(:", "import nothing_of_this_name", "raise SystemExit(3)"])
    def test_unloadable_file(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "bad.py").write_text(content)
        before = set(sys.modules)
        with pytest.raises(UsageError, match=r"bad\.py cannot be loaded: (SyntaxError|ModuleNotFound|SystemExit)"):
            canonical_name(f"{tmp_path}/bad.py:make_model")
        assert not [name for name in set(sys.modules) - before if name.startswith("kdedge_factory")]


class TestBuild:
    @pytest.mark.parametrize("function", ["make_model", "needs_argument", "forwards"])
    def test_factory_receives_the_number_of_classes(self, nets: Path, function: str) -> None:
        model = build_model(make_spec(f"{nets}:{function}", 6), 32)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 6)
        assert set(head_tensors(f"{nets}:{function}", 32)) == {"4.weight", "4.bias"}

    def test_factory_without_argument_must_match_the_number_of_classes(self, nets: Path) -> None:
        assert build_model(make_spec(f"{nets}:always_seven", 7), 32)(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
        with pytest.raises(UsageError, match=r"always_seven returns 7 logits, expected 22"):
            build_model(make_spec(f"{nets}:always_seven", 22), 32)

    def test_early_strides_can_be_removed(self, nets: Path) -> None:
        model = build_model(replace(make_spec(f"{nets}:make_model", 4), stride_factor=2), 32)
        assert model[0].stride == (1, 1)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("no_module", r"no_module returned str\. Expected a torch\.nn\.Module"),
            ("broken", r"broken failed when called as broken\(\): RuntimeError: out of luck"),
            ("no_logits", r"returns a tensor \(1, 8, 30, 30\) for one image\. Expected logits \[1, K\]"),
            ("one_size", r"does not accept an input of shape .*32, 32.*pretrained_cfg"),
        ],
    )
    def test_invalid_models_are_rejected(self, nets: Path, function: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            build_model(make_spec(f"{nets}:{function}", 4), 32)


class TestNeighbours:
    """Imports of a factory's file from its own folder."""

    @staticmethod
    def package(folder: Path, width: int) -> Path:
        folder.mkdir()
        (folder / "neighbour_of_nets.py").write_text(f"WIDTH = {width}")
        (folder / "late_neighbour.py").write_text(f"CLASSES = {width + 1}")
        (folder / "nets.py").write_text(
            "from torch import nn\nfrom neighbour_of_nets import WIDTH\n"
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        from late_neighbour import CLASSES\n"
            "        self.head = nn.Linear(WIDTH, CLASSES)\n"
            "    def forward(self, x):\n"
            "        return self.head(x.mean((2, 3))[:, :1].expand(-1, self.head.in_features))\n"
            "def make_model():\n    return Net()\n"
        )
        return folder / "nets.py"

    def test_neighbor_modules_may_share_a_name(self, tmp_path: Path) -> None:
        path = list(sys.path)
        for name, width in (("teacher", 5), ("student", 3)):
            file = self.package(tmp_path / name, width)
            model = build_model(make_spec(f"{file}:make_model", width + 1), 32)
            assert model.head.weight.shape == (width + 1, width)
        assert sys.path == path

    def test_module_name_is_unique(self, tmp_path: Path) -> None:
        (tmp_path / "json.py").write_text("from torch import nn\ndef make_model():\n    return nn.Flatten()\n")
        import json

        canonical_name(f"{tmp_path}/json.py:make_model")
        assert sys.modules["json"] is json
        assert json.dumps([1]) == "[1]"

    def test_classes_are_found_by_module_name(self, tmp_path: Path) -> None:
        file = self.package(tmp_path / "nets", 2)
        net = type(build_model(make_spec(f"{file}:make_model", 3), 32))
        assert sys.modules[net.__module__].Net is net


class TestInput:
    def test_default_input_is_imagenets(self, nets: Path) -> None:
        spec = pretrained_input(f"{nets}:make_model")
        assert spec == ImageInput(224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def test_input_from_pretrained_cfg(self, nets: Path) -> None:
        spec = pretrained_input(f"{nets}:described")
        assert spec == ImageInput(48, 40, (0.5, 0.4, 0.3), (0.229, 0.224, 0.225), crop_fraction=0.9)

    def test_factory_of_a_timm_model_has_timms_input(self, tmp_path: Path) -> None:
        pytest.importorskip("timm")
        file = tmp_path / "nets.py"
        file.write_text(
            "import timm\ndef make_model(num_classes=5):\n"
            "    return timm.create_model('test_efficientnet.r160_in1k', num_classes=num_classes)\n"
        )
        assert pretrained_input(f"{file}:make_model") == pretrained_input("timm:test_efficientnet.r160_in1k")

    def test_unreadable_pretrained_cfg(self, nets: Path) -> None:
        with pytest.raises(UsageError, match=r"badly_described has an unreadable pretrained_cfg .*Expected a dict"):
            pretrained_input(f"{nets}:badly_described")


class TestTrained:
    @staticmethod
    def weights(nets: Path, function: str, classes: int) -> tuple[torch.nn.Module, Path]:
        model = build_model(make_spec(f"{nets}:{function}", classes), 32)
        path = nets.parent / "w.pth"
        torch.save(model.state_dict(), path)
        return model, path

    @pytest.mark.parametrize(("function", "classes"), [("make_model", 9), ("needs_argument", 9), ("always_seven", 7)])
    def test_number_of_classes_is_read_from_the_weights(
        self, nets: Path, monkeypatch: pytest.MonkeyPatch, function: str, classes: int
    ) -> None:
        original, weights = self.weights(nets, function, classes)
        monkeypatch.chdir(nets.parent)
        trained = load_trained(f"nets.py:{function}", weights=weights)
        assert trained.labels == tuple(str(index) for index in range(classes))
        assert trained.spec.name == f"{nets}:{function}"
        for name, value in trained.model.state_dict().items():
            assert torch.equal(value, original.state_dict()[name])
        assert trained.origin == {
            "source": f"nets.py:{function}",
            "weights": str(weights),
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "code_sha256": hashlib.sha256(nets.read_bytes()).hexdigest(),
        }

    def test_factory_without_weights_needs_a_default(self, nets: Path) -> None:
        assert len(load_trained(f"{nets}:make_model", pretrained=False).labels) == 4
        with pytest.raises(UsageError, match=r"requires the number of classes.*--weights FILE"):
            load_trained(f"{nets}:needs_argument", pretrained=False)

    def test_weights_of_another_network(self, nets: Path, tmp_path: Path) -> None:
        save_file({"fc.weight": torch.zeros(4, 8)}, tmp_path / "w.safetensors")
        with pytest.raises(UsageError, match=r"do not fit Sequential: tensors 4 missing .*1 unknown"):
            load_trained(f"{nets}:make_model", weights=tmp_path / "w.safetensors")


def test_export_records_the_factory(nets: Path, tmp_path: Path) -> None:
    _, weights = TestTrained.weights(nets, "described", 4)
    exported = export_model(
        f"{nets}:described", weights=weights, output=tmp_path / "m.onnx", profile=load_profile("generic")
    )
    student = Model.load(exported.fp32).metadata.lineage["student"]
    assert student["weights"] == weights.name
    again = load_trained(student["source"], weights=weights)
    assert again.origin == student | {"weights": str(weights)}


class TestRun:
    @pytest.fixture
    def run(self, nets: Path, tmp_path: Path) -> Path:
        """Run of a factory's network, as written by training."""
        spec = make_spec(f"{nets}:make_model", 5, fresh_stem=False)
        model = build_model(spec, 32)
        record = RunRecord(
            kind="train",
            model=spec,
            input=ImageInput(32, 32, (0.5,) * 3, (0.25,) * 3),
            labels=tuple("abcde"),
            data={"source": "/photos", "fingerprint": "ab", "train": 8, "val": 2},
            recipe=asdict(tiny_config(epochs=1)) | {"measured": []},
            request={"data": "/photos", "model": spec.name},
            device="CPU",
        )
        write_run(tmp_path / "run", record)
        save_weights(tmp_path / "run" / BEST, model, {})
        return tmp_path / "run"

    def test_run_can_rebuild_the_network(self, run: Path, nets: Path) -> None:
        spec = read_run(run).model
        assert spec.name == f"{nets}:make_model"
        assert spec.code_sha256 == hashlib.sha256(nets.read_bytes()).hexdigest()
        trained = load_trained(str(run))
        rebuilt = build_model(spec, 32)
        load_state(rebuilt, trained.model.state_dict(), "the run")
        picture = torch.randn(1, 3, 32, 32)
        assert torch.equal(rebuilt(picture), trained.model(picture))

    def test_changed_file_is_reported(self, run: Path, nets: Path) -> None:
        nets.write_text(NETS + "\n# tidied\n")
        with pytest.raises(UsageError, match=r"nets\.py has changed since the model was trained.*Restore the file"):
            load_trained(str(run))

    def test_missing_file_is_reported(self, run: Path, nets: Path) -> None:
        nets.unlink()
        with pytest.raises(UsageError, match=r"no file .*nets\.py"):
            load_trained(str(run))

    def test_changed_file_is_reloaded(self, nets: Path) -> None:
        assert build_model(make_spec(f"{nets}:make_model", 5), 32)[0].out_channels == 8
        nets.write_text(NETS.replace("8,", "16,"))
        assert build_model(make_spec(f"{nets}:make_model", 5), 32)[0].out_channels == 16
