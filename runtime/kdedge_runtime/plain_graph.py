"""The same model without its map, to measure what the map costs.

onnxruntime computes every node of a graph, also those whose outputs nobody asks for, so they have to be taken out of
the file.
"""

from kdedge_runtime import wire

__all__ = ["keep_output"]


def keep_output(model: bytes, name: str) -> bytes:
    """An ONNX file with one output only, and only the nodes that it needs.

    Args:
        model: the content of a model file whose nodes are in order, as ONNX asks.
        name: the output.

    Raises:
        ValueError: the content is no ONNX file, has no such output, or has nodes with graphs inside, which may need
            values in ways that this does not follow.
    """
    fields = list(wire.fields(model))
    if sum(field.number == wire.MODEL_GRAPH for field in fields) != 1:
        raise ValueError("the file holds no graph")
    return b"".join(
        wire.held(field.number, _pruned(field.content, name)) if field.number == wire.MODEL_GRAPH else field.whole
        for field in fields
    )


def _pruned(graph: memoryview, name: str) -> bytes:
    needed, kept = {name.encode()}, []
    for field in reversed(list(wire.fields(graph))):
        if field.number == wire.GRAPH_NODE:
            node = field.content
            if any(_holds_graph(part.content) for part in wire.fields(node) if part.number == wire.NODE_ATTRIBUTE):
                raise ValueError("a node holds a graph of its own")
            if needed.isdisjoint(wire.texts(node, wire.NODE_OUTPUT)):
                continue
            needed |= wire.texts(node, wire.NODE_INPUT)
        elif field.number == wire.GRAPH_OUTPUT and name.encode() not in wire.texts(field.content, wire.VALUE_NAME):
            continue
        kept.append(field)
    if not any(field.number == wire.GRAPH_OUTPUT for field in kept):
        raise ValueError(f"the graph has no output {name}")
    return b"".join(field.whole for field in reversed(kept))


def _holds_graph(attribute: memoryview) -> bool:
    return any(part.number in wire.ATTRIBUTE_GRAPHS for part in wire.fields(attribute))
