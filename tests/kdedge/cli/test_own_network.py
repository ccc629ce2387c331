"""Custom network without a closed-form head, from `kdedge export` to `run` and `explain`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from training_toys import Outcome

from kdedge.models.code_trust import allow_typed
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.trained_model import load_trained
from kdedge_runtime import Model

SIDE, CLASSES = 32, 3
Command = Callable[..., Outcome]
_NETWORK = f"""
from torch import nn

class Peak(nn.Module):
    def __init__(self, classes):
        super().__init__()
        first, second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.body = nn.Sequential(first, nn.ReLU(), second, nn.BatchNorm2d(16), nn.ReLU())
        self.last = nn.Linear(16, classes)

    def forward(self, x):
        return self.last(self.body(x).amax((2, 3)))

def make_model(num_classes=3):
    model = Peak(num_classes)
    model.pretrained_cfg = {{"input_size": (3, {SIDE}, {SIDE})}}
    return model
"""


@pytest.fixture
def network(tmp_path: Path) -> tuple[str, Path]:
    """Name of a network whose head takes the maximum over positions, and a file with its weights."""
    (tmp_path / "nets.py").write_text(_NETWORK)
    name, weights = f"{tmp_path / 'nets.py'}:make_model", tmp_path / "weights.safetensors"
    allow_typed(name)
    torch.manual_seed(0)
    save_file(build_model(ModelSpec(name, CLASSES), SIDE).state_dict(), weights)
    return name, weights


@pytest.fixture
def exported(command: Command, network: tuple[str, Path], tmp_path: Path) -> Path:
    name, weights = network
    done = command("export", name, "--weights", weights, "-o", tmp_path / "peak.onnx")
    assert done.code == 0, done.err
    assert "hirescam, 8 × 8, linear head at body" in done.err
    assert "map matches PyTorch (relative error" in done.err
    return tmp_path / "peak.onnx"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_map_equals_hirescam_by_autograd(exported: Path, network: tuple[str, Path]) -> None:
    trained = load_trained(network[0], weights=network[1])
    net, seen = trained.model.eval(), list[Tensor]()
    net.get_submodule("body").register_forward_hook(lambda _module, _args, output: seen.append(output))
    images = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    x = torch.from_numpy((images / 255.0 - trained.input.mean) / trained.input.std).permute(0, 3, 1, 2).float()
    for requested in (None, 2):
        logits = net(x)
        score = logits.max(dim=1).values if requested is None else logits[:, requested]
        (gradient,) = torch.autograd.grad(score.sum(), seen[-1])
        expected = (gradient * seen[-1]).sum(1).detach().numpy()
        found = Model.load(exported).predict(images, requested)
        np.testing.assert_allclose(found.logits, logits.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(found.saliency_map, expected, atol=1e-5 * float(np.ptp(expected)))


def test_run_and_explain(command: Command, exported: Path, photo: Path, tmp_path: Path) -> None:
    run = command("run", exported, "--source", photo, "--class", "2", "--jsonl", "-")
    assert run.code == 0, run.err
    frame = json.loads(run.out.splitlines()[0])
    assert (frame["explained"], frame["skip_reason"]) == ("2", None) and frame["heat"]["area"] > 0
    assert "map 8 × 8 hirescam" in run.err
    explained = command("explain", exported, photo, "-o", tmp_path / "out")
    assert explained.code == 0, explained.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"noise{end}" for end in (".png", ".html", ".svg", ".decision.png")
    }
    requested = command("explain", exported, photo, "--method", "occlusion", "--no-page", "-o", tmp_path / "requested")
    assert requested.code == 0 and "evaluations" in requested.out, requested.err


def test_methods_that_need_a_closed_form_are_rejected(
    command: Command, exported: Path, network: tuple[str, Path], photo: Path, tmp_path: Path
) -> None:
    name, weights = network
    cam = command("export", name, "--weights", weights, "--method", "cam", "-o", tmp_path / "cam.onnx")
    assert cam.code == 2 and not (tmp_path / "cam.onnx").exists()
    assert "no class activation map (cam)" in cam.err and "Choose another --method, such as gradcam" in cam.err
    masked = command("run", exported, "--source", photo, "--method", "scorecam", "--jsonl", "-")
    assert masked.code == 2 and "Score-CAM needs the activations" in masked.err


_BRANCHES = "if features.mean() > 0: features = features * 2"
_NO_DERIVATIVE = "features = torch.special.airy_ai(features)"
_CAUSAL = """tokens = features.flatten(2).transpose(1, 2)
        tokens = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
        features = tokens.transpose(1, 2).unflatten(2, (8, 8))"""


@pytest.mark.parametrize(
    ("before", "after", "words_of_error"),
    [
        ("", _BRANCHES, ("at Peak, nets.py line 14", "depends on values", "torch.where instead of if")),
        ("x = torch.linalg.qr(x)[0]", "", ("aten.linalg_qr", "--method none")),
        ("", _NO_DERIVATIVE, ("does not require grad", "--method none")),
        ("", _CAUSAL, ("scaled_dot_product_attention with is_causal=True", "attn_mask", "--method none")),
    ],
    ids=["branch", "operator", "derivative", "causal attention"],
)
def test_unexportable_network_is_a_single_sentence_error(
    command: Command, tmp_path: Path, before: str, after: str, words_of_error: tuple[str, ...]
) -> None:
    body = (
        f"{before}\n        features = self.body(x)\n        {after}\n        return self.last(features.mean((2, 3)))"
    )
    network = _NETWORK.replace("return self.last(self.body(x).amax((2, 3)))", body)
    (tmp_path / "nets.py").write_text(f"import torch{network}")
    done = command("export", f"{tmp_path / 'nets.py'}:make_model", "--no-pretrained", "-o", tmp_path / "net.onnx")
    assert done.code == 2 and not (tmp_path / "net.onnx").exists(), done.err
    step, error = done.err.splitlines()  # no traceback and no partially traced graph
    assert step == "exporting …" and error.startswith("error: ")
    assert done.out == "" and all(words in done.err for words in words_of_error), done.err


_TRANSFORMER = f"""
import torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.ones(1, 1, 16))
        blocks = (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(2))
        self.blocks, self.last = nn.Sequential(*blocks), nn.Linear(16, {CLASSES})

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1)
        return self.last(self.blocks(tokens)[:, 0])

def make_model():
    model = Tokens()
    model.pretrained_cfg = {{"input_size": (3, {SIDE}, {SIDE})}}
    return model
"""


def test_fixed_batch_size_is_rejected(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tokens.py").write_text(_TRANSFORMER.replace("x.shape[0]", "len(x)"))
    done = command("export", f"{tmp_path / 'tokens.py'}:make_model", "--no-pretrained", "-o", tmp_path / "tokens.onnx")
    assert done.code == 2 and not (tmp_path / "tokens.onnx").exists()
    error = done.err.splitlines()[-1]
    assert error.startswith("error: Tokens cannot be exported") and "x.shape[0] or -1 instead of len(x)" in error


def test_attribution_of_a_transformer(command: Command, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens.py").write_text(_TRANSFORMER)
    model = tmp_path / "tokens.onnx"
    done = command("export", f"{tmp_path / 'tokens.py'}:make_model", "--no-pretrained", "-o", model)
    assert done.code == 0, done.err
    inspected = command("inspect", model, photo, "-o", tmp_path / "page.html")
    assert inspected.code == 0, inspected.err
    positions = SIDE // 8
    for attention in (2, 1):
        assert f"{positions} × {positions}, input of attention {attention} of 2  gradient × activation" in inspected.err
    assert "% in non-patch tokens" in inspected.err
    assert "attention 2 of 2" in (tmp_path / "page.html").read_text("utf-8")


_DENSE = f"""
from torch import nn

def make_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * {SIDE} * {SIDE}, 16), nn.ReLU(), nn.Linear(16, {CLASSES}))
    model.pretrained_cfg = {{"input_size": (3, {SIDE}, {SIDE})}}
    return model
"""


def test_layers_are_shown_without_attribution(command: Command, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "dense.py").write_text(_DENSE)
    model = tmp_path / "dense.onnx"
    done = command("export", f"{tmp_path / 'dense.py'}:make_model", "--no-pretrained", "--method", "none", "-o", model)
    assert done.code == 0, done.err
    inspected = command("inspect", model, photo, "-o", tmp_path / "page.html")
    assert inspected.code == 0, inspected.err
    assert "Gemm" in inspected.out and (tmp_path / "page.html").is_file()
    explained = command("explain", model, photo, "-o", tmp_path / "out")
    assert explained.code == 0 and (tmp_path / "out" / "noise.png").is_file(), explained.err
    for printed in (inspected.err, explained.err):
        assert "cannot be computed" in printed and "spatial positions" in printed
        assert "--target-layer" not in printed, "neither command has this option"
