"""Training with int8's errors: what is rounded, that nothing stays rounded, and that the better file is taken."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kdedge.distill.fake_quantization import fake_quantized
from kdedge.models.run_folder import BEST
from kdedge.models.trained import load_trained
from kdedge.workflow.export_model import export_model
from kdedge.workflow.fine_tune import fine_tune
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import UsageError

VNNI = load_profile("laptop-x86-vnni")
OCTAVES = 3
COARSE = 40


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU())


def test_weights_and_inputs_are_rounded_while_it_lasts_and_gradients_pass() -> None:
    model = small_net()
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    reach = float(model[1](model[0](x)).detach().max())
    exact, before = model(x), {name: value.clone() for name, value in model.state_dict().items()}
    with fake_quantized(model, {"2": (0.0, reach)}, ["0", "2"], reduce_range=False):
        seen: list[torch.Tensor] = []
        handle = model[2].register_forward_hook(lambda _module, args, _output: seen.append(args[0]))
        rounded = model.train()(x)
        assert not model.training, "statistics of a batch are another error"
        handle.remove()
        assert len(model[0].weight[0].unique()) <= 255
        # The weights of a channel are whole multiples of its largest, divided by 127.
        steps = model[0].weight.flatten(1) / (model[0].weight.flatten(1).abs().amax(1, keepdim=True) / 127)
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        assert 100 < len(seen[0].unique()) <= 256
        assert 0 < float((rounded - exact).detach().abs().max()) < 0.03 * float(exact.detach().abs().max())
        rounded.sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys(), "something of it stays behind"
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=0, rtol=0)
    torch.testing.assert_close(model(x), exact)


def test_a_reduced_range_rounds_weights_to_seven_bits() -> None:
    model = small_net()
    with fake_quantized(model, {}, ["0"], reduce_range=True):
        for weight in model[0].weight.flatten(1):
            assert len(weight.unique()) <= 127
            steps = weight / (weight.abs().max() / 63)
            torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)


def test_what_lies_outside_the_range_is_clipped_and_gets_no_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    x = torch.tensor([-2.0, -0.5, 0.3, 4.0]).reshape(1, 1, 2, 2).requires_grad_()
    with fake_quantized(model, {"0": (-1.0, 1.0)}, [], reduce_range=False):
        y = model(x)
        y.sum().backward()
    torch.testing.assert_close(y.detach().flatten(), torch.tensor([-1.0, -0.5, 0.3, 1.0]), atol=0.004, rtol=0)
    assert x.grad is not None and x.grad.flatten().tolist() == [0, 1, 1, 0]


@pytest.fixture(scope="module")
def spread_run(exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's function, written with channels of very different sizes, of which one scale serves few."""
    run = shutil.copytree(exported_run, tmp_path_factory.mktemp("spread") / "student")
    weights, generator = load_file(run / BEST), torch.Generator().manual_seed(0)
    for block in ("model.layer1.0", "model.layer2.0", "model.layer3.0"):
        channels = len(weights[f"{block}.bn1.weight"])
        sizes = torch.exp2(OCTAVES * (2 * torch.rand(channels, generator=generator) - 1))
        weights[f"{block}.bn1.weight"] *= sizes
        weights[f"{block}.bn1.bias"] *= sizes
        weights[f"{block}.conv2.weight"] /= sizes[:, None, None]
    save_file(weights, run / BEST)
    return run


def test_what_keeps_more_is_taken_and_both_are_noted(spread_run: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    result = export_model(
        str(spread_run),
        output=tmp_path / "m.onnx",
        with_int8=True,
        with_qat=True,
        profile=VNNI,
        progress=lambda *step: told.append(step),
    )
    assert result.int8 is not None
    metadata = Model.load(result.int8).metadata
    assert metadata.quantization is not None
    qat = metadata.quantization["qat"]
    assert qat["epochs"] == 3 and qat["loss"].keys() == {"kd", "mapall"}
    losses = [qat[when]["loss"] for when in ("before", "after")]
    assert losses[0] != losses[1] and qat["taken"] is (losses[1] < losses[0])
    held_out = metadata.quantization["held_out"]
    assert held_out["loss"] == pytest.approx(held_out["logits_error"] / 2 + 1 - held_out["map_pearson"])
    assert held_out["loss"] == pytest.approx(min(losses)), "the file is the other one"
    taken = qat["after" if qat["taken"] else "before"]
    assert taken | held_out == taken | {"images": held_out["images"]}
    assert metadata.lineage == Model.load(result.fp32).metadata.lineage, "or it is not validated with the fp32 file"
    assert any(what == "training with int8's errors" and done == total for what, done, total in told)


@pytest.fixture
def coarse_run(exported_run: Path, tmp_path: Path) -> Path:
    """A run whose kernels each have one weight so large that few of the 255 steps are left for the others.

    It multiplies a channel that is always 0, so that it says nothing in float. As if trained for 200 epochs: training
    on goes by a share of them, and two epochs' share would teach nothing.
    """
    run = shutil.copytree(exported_run, tmp_path / "coarse")
    weights = load_file(run / BEST)
    for block in ("model.layer1.0", "model.layer2.0", "model.layer3.0"):
        weights[f"{block}.bn1.weight"][0], weights[f"{block}.bn1.bias"][0] = 0, -1
        kernels = weights[f"{block}.conv2.weight"]
        kernels[:, 0] = COARSE * kernels.abs().amax(dim=(1, 2, 3))[:, None, None]
    save_file(weights, run / BEST)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["recipe"] |= {"epochs": 200, "learning_rate": 0.05}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return run


def test_training_on_gives_back_what_rounding_has_taken(coarse_run: Path, tmp_path: Path) -> None:
    result = export_model(str(coarse_run), output=tmp_path / "m.onnx", with_int8=True, with_qat=True, profile=VNNI)
    assert result.int8_note is not None
    before, after = (result.int8_note["qat"][when] for when in ("before", "after"))
    assert before["agreement"] < 0.7 and before["loss"] > 0.2, "plain int8 does not collapse"
    assert result.int8_note["qat"]["taken"] and after["loss"] < before["loss"] / 5
    assert after["agreement"] >= 0.8 and after["map_pearson"] > max(0.99, before["map_pearson"])


def test_the_student_of_the_run_stays_as_it_was(exported_run: Path) -> None:
    before = (exported_run / BEST).read_bytes()
    tuned, note = fine_tune(
        exported_run, {"conv1": None, "layer1.0.conv1": (0.0, 3.0)}, reduce_range=False, progress=lambda *_: None
    )
    assert (exported_run / BEST).read_bytes() == before
    weights, exact = tuned.model.state_dict(), load_trained(str(exported_run)).model.state_dict()
    assert weights.keys() == exact.keys()
    moved = [float((weights[name] - exact[name]).abs().max()) for name in exact if name.endswith("conv1.weight")]
    assert max(moved) > 0, "nothing was learned"
    assert note["learning_rate"] > 0 and np.isfinite(max(moved))


def test_only_a_run_can_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--qat trains a run's student on, and small:resnet8 is not a run folder"):
        export_model("small:resnet8", output=tmp_path / "m.onnx", with_int8=True, with_qat=True, profile=VNNI)
