"""Remove the saliency map from a model, to measure the latency it adds.

onnxruntime computes all nodes, including those of outputs that are not requested, so they must be removed from the
file.
"""

from kdedge_runtime.util import protobuf

__all__ = ["keep_output"]


def keep_output(model: bytes, name: str) -> bytes:
    """Return an ONNX file with a single output and only the nodes it needs.

    Args:
        model: content of a model file with topologically sorted nodes, as ONNX requires.
        name: name of the output.

    Raises:
        ValueError: the content is not an ONNX file, lacks this output, or contains nodes with subgraphs, which are not
        supported.
    """
    fields = list(protobuf.fields(model))
    if sum(field.number == protobuf.MODEL_GRAPH for field in fields) != 1:
        raise ValueError("the file contains no graph")
    return b"".join(
        protobuf.encode_field(field.number, _pruned(field.content, name))
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
                raise ValueError("a node contains a subgraph")
            if needed.isdisjoint(protobuf.string_values(node, protobuf.NODE_OUTPUT)):
                continue
            needed |= protobuf.string_values(node, protobuf.NODE_INPUT)
        elif field.number == protobuf.GRAPH_OUTPUT and name.encode() not in protobuf.string_values(
            field.content, protobuf.VALUE_NAME
        ):
            continue
        kept.append(field)
    if not any(field.number == protobuf.GRAPH_OUTPUT for field in kept):
        raise ValueError(f"the graph has no output {name}")
    return b"".join(field.whole for field in reversed(kept))


def _holds_graph(attribute: memoryview) -> bool:
    return any(part.number in protobuf.ATTRIBUTE_GRAPHS for part in protobuf.fields(attribute))
