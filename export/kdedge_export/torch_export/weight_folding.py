"""Rewrite transposed matmuls so that each weight is stored once.

PyTorch's derivative of `x Wᵀ` uses a transposed weight in the forward pass, transposed again in the backward pass, and
a row of the weight as a product with a one-hot vector. An exporter folds some of these into additional copies of the
weight, and computes others in every run. For noncontiguous sequences PyTorch multiplies each position with the weight
separately. A runtime that folds constants then holds one copy of the weight per position.
"""

from typing import Any

import torch
from torch import fx, nn

__all__ = ["fold_transposed_weights"]

aten = torch.ops.aten


def fold_transposed_weights(module: fx.GraphModule) -> None:
    """Rewrite products with a constant `W` as dense layers.

    `x · t(W)` becomes a dense layer, `t(t(W))` becomes `W`, `onehot(c) · W` becomes row `c`, and batches of products
    with copies of `W` become one product.
    """
    graph = module.graph
    _store_matrices(module)
    for node in list(graph.nodes):
        if node.target is aten.addmm.default and not node.kwargs and (weight := _transposed(node.args[2])) is not None:
            _replace(graph, node, aten.linear.default, (node.args[1], weight, node.args[0]))
        elif node.target is aten.mm.default:
            left, right = node.args
            if (weight := _transposed(right)) is not None:
                _replace(graph, node, aten.linear.default, (left, weight))
            elif (weight := _constant(right)) is not None and (chosen := _one_hot(left)) is not None:
                _row(graph, node, weight, *chosen)
            elif weight is not None:
                node.args = (left, weight)
        elif node.target is aten.bmm.default and (copied := _copied(node.args[1])) is not None:
            _flat(graph, node, *copied)
    graph.eliminate_dead_code()


def _store_matrices(module: fx.GraphModule) -> None:
    """Store weights used only as matrices, such as 1 × 1 convolutions of pooled values, as matrices."""
    readers: dict[str, list[fx.Node]] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        readers.setdefault(str(node.target), []).extend(node.users)
    for path, nodes in readers.items():
        if nodes and all(_takes_one_position(node) for node in nodes):
            owner, _, name = path.rpartition(".")
            matrix = module.get_parameter(path).squeeze((2, 3))
            setattr(module.get_submodule(owner), name, nn.Parameter(matrix, requires_grad=False))
            for node in nodes:
                node.replace_all_uses_with(node.all_input_nodes[0])
                module.graph.erase_node(node)


def _takes_one_position(node: fx.Node) -> bool:
    return node.target is aten.squeeze.dims and node.args[1] == [2, 3]


def _constant(node: Any) -> fx.Node | None:
    """Return a constant, also if transposed an even number of times; else None."""
    turned = False
    while node.op == "call_function" and node.target is aten.t.default:
        node, turned = node.args[0], not turned
    return node if node.op == "get_attr" and not turned else None


def _transposed(node: Any) -> fx.Node | None:
    return _constant(node.args[0]) if node.op == "call_function" and node.target is aten.t.default else None


def _copied(node: Any) -> tuple[fx.Node, bool] | None:
    """Return the constant `[a, b]` repeated in `[N, a, b]` or, transposed, `[N, b, a]`, and True if transposed."""
    turned = False
    while node.op == "call_function":
        source = node.args[0]
        if node.target is aten.t.default or (node.target is aten.transpose.int and 0 not in _axes(node)):
            turned = not turned
        elif node.target not in _VIEWS or _shape(source)[-2:] != _shape(node)[-2:]:
            return None
        node = source
    return (node, turned) if node.op == "get_attr" and len(_shape(node)) == 2 else None


def _shape(node: fx.Node) -> tuple[Any, ...]:
    """Return the shape of a node's value; empty for a node without one, such as a constant added by a rewrite."""
    return tuple(node.meta["val"].shape) if "val" in node.meta else ()


def _flat(graph: fx.Graph, node: fx.Node, weight: fx.Node, turned: bool) -> None:
    """Rewrite a batched product as one product of all rows; an exporter would copy the weight otherwise."""
    rows, columns = node.args[0].meta["val"].shape[-1], node.meta["val"].shape[-1]  # type: ignore[union-attr]
    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape[:2]]
    with graph.inserting_before(node):
        flat = graph.call_function(aten.reshape.default, (node.args[0], [-1, rows]))
        product = graph.call_function(aten.linear.default if turned else aten.mm.default, (flat, weight))
    _replace(graph, node, aten.reshape.default, (product, [*sizes, columns]))


def _axes(node: fx.Node) -> set[int]:
    return {int(axis) % node.meta["val"].ndim for axis in node.args[1:3]}  # type: ignore[arg-type]


_VIEWS = {aten.expand.default, aten.view.default, aten._unsafe_view.default}


def _one_hot(node: Any) -> tuple[fx.Node, fx.Node] | None:
    """Return index and value `[N, 1]` of the only nonzero entry of each row."""
    if node.target is not aten.scatter_add.default or node.args[1] != 1:
        return None
    zeros, _, index, value = node.args
    if zeros.target not in _ZEROS or index.meta["val"].shape[1] != 1:
        return None
    return index, value


_ZEROS = {aten.new_zeros.default, aten.zeros.default, aten.zeros_like.default}


def _row(graph: fx.Graph, node: fx.Node, weight: fx.Node, index: fx.Node, value: fx.Node) -> None:
    with graph.inserting_before(node):
        row = graph.call_function(aten.embedding.default, (weight, graph.call_function(aten.squeeze.dim, (index, 1))))
    _replace(graph, node, aten.mul.Tensor, (row, value))


def _replace(graph: fx.Graph, node: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    with graph.inserting_before(node):
        node.replace_all_uses_with(graph.call_function(target, args))
    graph.erase_node(node)
