"""Attribution at the last tokens, compared with PyTorch's autograd."""

from pathlib import Path

import onnx
import pytest
import torch
from exported_nets import TOLERANCE, to_onnx
from small_nets import inputs, relative_error
from token_nets import NETS, POSITIONS, random
from torch import Tensor

from kdedge_export.inspection.layer_attribution import attribute_layers


class TestLayerAttribution:
    """Evidence at the last tokens, gradient × activation, as reported by `kdedge inspect`."""

    @pytest.mark.parametrize("net", ["class token", "rows of positions"])
    def test_last_stage_is_gradient_times_activation(self, tmp_path: Path, net: str) -> None:
        make, layer, how = NETS[net]
        model, x = random(make), inputs(1, 1)
        path = to_onnx(model, tmp_path / "theirs.onnx")
        stage = attribute_layers(onnx.load(path), {"input": x.numpy()}, "net").stages[0]
        seen: list[Tensor] = []
        model.get_submodule(layer).register_forward_hook(lambda _module, _args, output: seen.append(output))
        logits = model(x)
        (slope,) = torch.autograd.grad(logits.max(), seen[0])
        evidence = (how(slope) * how(seen[0])).detach()[0]
        assert (stage.way, stage.positions) == ("gradient × activation", (POSITIONS, POSITIONS))
        assert relative_error(torch.from_numpy(stage.evidence.saliency_map)[None], evidence.sum(0)[None]) <= TOLERANCE
        shares = evidence.sum((1, 2)).abs().sort(descending=True)
        assert [item.index for item in stage.evidence.channels] == shares.indices[:6].tolist()
