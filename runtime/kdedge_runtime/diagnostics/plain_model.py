"""The same model without its map, to measure what the map costs.

onnxruntime computes every node of a graph, also those whose outputs nobody asks for, so they have to be taken out of
the file.
"""

from kdedge_runtime.util import protobuf

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
    fields = list(protobuf.fields(model))
    if sum(field.number == protobuf.MODEL_GRAPH for field in fields) != 1:
        raise ValueError("the file holds no graph")
    return b"".join(
        protobuf.held(field.number, _pruned(field.content, name))
        if field.number == protobuf.MODEL_GRAPH
        else field.whole
        for field in fields
    )


def _pruned(graph: memoryview, name: str) -> bytes:
    needed, kept = {name.encode()}, []
    for field in reversed(list(protobuf.fields(graph))):
        if field.number == protobuf.GRAPH_NODE:
            node = field.content
            if any(
                _holds_graph(part.content) for part in protobuf.fields(node) if part.number == protobuf.NODE_ATTRIBUTE
            ):
                raise ValueError("a node holds a graph of its own")
            if needed.isdisjoint(protobuf.texts(node, protobuf.NODE_OUTPUT)):
                continue
            needed |= protobuf.texts(node, protobuf.NODE_INPUT)
        elif field.number == protobuf.GRAPH_OUTPUT and name.encode() not in protobuf.texts(
            field.content, protobuf.VALUE_NAME
        ):
            continue
        kept.append(field)
    if not any(field.number == protobuf.GRAPH_OUTPUT for field in kept):
        raise ValueError(f"the graph has no output {name}")
    return b"".join(field.whole for field in reversed(kept))


def _holds_graph(attribute: memoryview) -> bool:
    return any(part.number in protobuf.ATTRIBUTE_GRAPHS for part in protobuf.fields(attribute))
