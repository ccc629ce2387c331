"""Tracing of a forward pass that differentiates, as a plain graph of tensor operations.

ONNX exporters do not support gradients inside `forward`. Traced below autograd, a gradient is an ordinary sequence of
operations.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from kdedge_export.saliency.unfused_attention import unfuse_attention
from kdedge_export.torch_export.decompositions import DECOMPOSITIONS
from kdedge_export.torch_export.sparse_rows import KEEP_ROWS, RowSparseInterpreter
from kdedge_export.torch_export.weight_folding import fold_transposed_weights

__all__ = ["trace_with_gradients"]


def trace_with_gradients(
    function: Callable[..., Any], model: nn.Module, image: Tensor, class_index: Tensor, *further: Tensor
) -> fx.GraphModule:
    """Trace `function(image, class_index, *further)` including all derivatives.

    Args:
        function: function that uses `model` and may differentiate it.
        model: model in evaluation mode with frozen parameters; it is not modified.
        image: an example; its first dimension, the batch, stays dynamic.
        class_index: an example; its size is fixed.
        further: examples; their first dimension stays dynamic.
    """
    fake = FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True, shape_env=ShapeEnv())

    def with_free_rows(example: Tensor, name: str) -> Tensor:
        free = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (example.ndim - 1)
        context: Any = StatelessSymbolicContext(free)
        return fake.from_tensor(example, symbolic_context=context, source=ConstantSource(name))

    examples = (
        with_free_rows(image, "image"),
        fake.from_tensor(class_index, static_shapes=True),
        *(with_free_rows(example, f"further_{place}") for place, example in enumerate(further)),
    )
    # Python's shape inference is used, since the C++ one fixes the dynamic batch to the example's.
    with fake, enable_python_dispatcher(), _out_of_place(model), unfuse_attention():
        first = {operation: rule for operation, rule in DECOMPOSITIONS.items() if operation not in KEEP_ROWS}
        graph = make_fx(function, decomposition_table=first, _allow_non_fake_inputs=True)(*examples)
        only_rows = RowSparseInterpreter(graph).run
        graph = make_fx(only_rows, decomposition_table=DECOMPOSITIONS, _allow_non_fake_inputs=True)(*examples)
    _name_weights(graph, model)
    fold_transposed_weights(graph)
    graph.recompile()
    graph.eval()
    return graph


def _name_weights(graph: fx.GraphModule, model: nn.Module) -> None:
    """Rename weights to their paths in the model, which identify layers; tracing numbers them."""
    paths = {id(weight): path for path, weight in (*model.named_parameters(), *model.named_buffers())}
    numbered = {node.target: getattr(graph, node.target) for node in graph.graph.find_nodes(op="get_attr")}
    for node in graph.graph.find_nodes(op="get_attr"):
        node.target = paths.get(id(numbered[node.target]), node.target)
    for number, weight in numbered.items():
        if (path := paths.get(id(weight))) is not None:
            delattr(graph, number)
            *owners, name = path.split(".")
            owner: nn.Module = graph
            for part in owners:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            setattr(owner, name, weight)


@contextmanager
def _out_of_place(model: nn.Module) -> Iterator[None]:
    """Disable in-place activations inside the block, since a derivative may need their input."""
    changed = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in changed:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True  # type: ignore[assignment]
