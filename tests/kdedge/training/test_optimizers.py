"""Optimizers: learning rates per layer, weight decay, and exact restoring from a checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.training.checkpoint import restore, save_checkpoint
from kdedge.training.compute_device import choose_device
from kdedge.training.optimizers import layer_scales, make_optimizer, set_learning_rate

CPU = choose_device("cpu")


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, rate: float, seed: int) -> None:
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    set_learning_rate(optimizer, rate)
    model(inputs).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


class TestScales:
    def test_rates_grow_geometrically_from_the_first_layer(self) -> None:
        model = dense()
        scales = {id(parameter): scale for parameter, scale in layer_scales(model, 0.04)}
        expected = {"0": 0.04, "1": 0.2, "2": 1.0}
        for name, parameter in model.named_parameters():
            assert scales[id(parameter)] == pytest.approx(expected[name.partition(".")[0]])

    def test_real_network_is_in_order_of_computation(self) -> None:
        model = build_model(ModelSpec("torchvision:resnet18", 5, fresh_stem=False), 64)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        scales = [(names[id(parameter)], scale) for parameter, scale in layer_scales(model, 0.1)]
        assert scales[0] == ("conv1.weight", pytest.approx(0.1))
        assert scales[-1] == ("fc.bias", pytest.approx(1.0))
        assert [scale for _, scale in scales] == sorted(scale for _, scale in scales)

    def test_no_decay_gives_one_rate(self) -> None:
        assert {scale for _, scale in layer_scales(dense(), 1.0)} == {1.0}


class TestSteps:
    @pytest.mark.parametrize("name", ["sgd", "adamw"])
    def test_first_step_moves_each_layer_by_its_rate(self, name: str) -> None:
        moved = {}
        for decay in (1.0, 0.25):
            model = dense()
            before = [parameter.detach().clone() for parameter in model.parameters()]
            optimizer = make_optimizer(name, model, nn.Identity(), CPU, weight_decay=0.0, decay=decay)
            step(model, optimizer, 0.01, seed=1)
            moved[decay] = [(new - old).detach() for new, old in zip(model.parameters(), before, strict=True)]
        for whole, scaled, scale in zip(moved[1.0], moved[0.25], (0.25, 0.25, 0.5, 0.5, 1.0, 1.0), strict=True):
            assert torch.allclose(scaled, scale * whole, rtol=1e-3, atol=1e-7)

    def test_adamw_decays_matrices_only(self) -> None:
        model = dense()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = make_optimizer("adamw", model, nn.Identity(), CPU, weight_decay=0.1, decay=1.0)
        set_learning_rate(optimizer, 0.5)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in model.named_parameters():
            kept = 1 - 0.5 * 0.1 if parameter.ndim > 1 else 1.0
            assert torch.allclose(parameter, kept * before[name]), name

    def test_equals_adamw_of_torch(self) -> None:
        ours, theirs = dense(), dense()
        optimizer = make_optimizer("adamw", ours, nn.Identity(), CPU, weight_decay=0.0, decay=1.0)
        reference = torch.optim.AdamW(theirs.parameters(), lr=0.02, weight_decay=0.0)
        for seed in range(3):
            step(ours, optimizer, 0.02, seed)
            inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
            theirs(inputs).square().sum().backward()
            reference.step()
            reference.zero_grad()
        assert all(torch.equal(*pair) for pair in zip(ours.parameters(), theirs.parameters(), strict=True))

    @pytest.mark.parametrize("name", ["sgd", "adamw"])
    def test_restored_optimizer_continues_exactly(self, name: str, tmp_path: Path) -> None:
        results = []
        for interrupted in (False, True):
            model, extra = dense(), nn.Linear(1, 1)
            optimizer = make_optimizer(name, model, extra, CPU, weight_decay=0.01, decay=0.5)
            for seed in range(4):
                if interrupted and seed == 2:
                    save_checkpoint(tmp_path / "c.safetensors", model, extra, optimizer, {}, {})
                    model, extra = dense(), nn.Linear(1, 1)
                    optimizer = make_optimizer(name, model, extra, CPU, weight_decay=0.01, decay=0.5)
                    restore(tmp_path / "c.safetensors", model, extra, optimizer)
                step(model, optimizer, 0.02, seed)
            results.append([parameter.detach().clone() for parameter in model.parameters()])
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
