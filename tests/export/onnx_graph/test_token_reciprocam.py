"""ReciproCAM of token-based networks, compared with one PyTorch run per position."""

from pathlib import Path

import onnx
import pytest
import torch
from exported_nets import TOLERANCE, run, to_onnx
from small_nets import inputs, relative_error
from token_nets import EXPORTERS, NETS, POSITIONS, random
from torch import Tensor, nn

from kdedge_export.onnx_import import ExplainedFile, add_saliency


class TestReciproCam:
    """Each position's own contribution to the logit, with all prefix tokens kept."""

    @EXPORTERS
    @pytest.mark.parametrize("net", ["class token", "distillation token", "torchvision's", "learned query"])
    def test_reciprocam_can_be_requested(self, tmp_path: Path, net: str, dynamo: bool) -> None:
        model = random(NETS[net][0])
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamo=dynamo)
        done = add_saliency(path, tmp_path / "ours.onnx", method="reciprocam")
        layer, prefix = {
            "torchvision's": ("encoder.layers.encoder_layer_0", 1),
            "learned query": ("body.norm", 0),
            "distillation token": ("blocks.0", 2),
        }.get(net, ("blocks.0", 1))
        assert done.outputs.method == "reciprocam"
        assert_runs_again(done, model, layer, prefix)

    def test_reciprocam_replaces_missing_derivatives(self, tmp_path: Path) -> None:
        """Operators fused for ONNX Runtime have no derivative."""
        model = random(NETS["class token"][0])
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamo=True)
        graph = onnx.load(path)
        for node in graph.graph.node:
            if node.op_type == "Gelu":
                node.domain = "com.microsoft"
                del node.attribute[:]
        graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        onnx.save_model(graph, path)
        done = add_saliency(path, tmp_path / "ours.onnx")
        assert (done.outputs.method, done.no_derivative_of) == ("reciprocam", "Gelu")
        assert_runs_again(done, model, "blocks.0", 1)


def assert_runs_again(done: ExplainedFile, model: nn.Module, layer: str, prefix: int) -> None:
    """Compare two batches with PyTorch, which runs the model once per position with all others at zero."""
    for seed in (1, 2):
        x = inputs(3, seed)
        found = run(done.path, x)
        kept = torch.zeros(prefix + POSITIONS**2, 1)

        def masked(_module: nn.Module, _args: object, output: Tensor, kept: Tensor = kept) -> Tensor:
            return output * kept

        handle = model.get_submodule(layer).register_forward_hook(masked)
        rows = []
        with torch.no_grad():
            for position in (None, *range(POSITIONS**2)):
                kept[:prefix], kept[prefix:] = 1, 0
                if position is not None:
                    kept[prefix + position] = 1
                rows.append(model(x).gather(1, found["explained_class"][:, None])[:, 0])
        handle.remove()
        expected = torch.stack(rows[1:], 1) - rows[0][:, None]
        assert relative_error(found["saliency_map"], expected.unflatten(1, (POSITIONS, POSITIONS))) <= TOLERANCE
