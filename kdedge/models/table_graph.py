"""Input of ONNX graphs of tables from other frameworks, such as those that skl2onnx writes."""

from pathlib import Path

import onnx

from kdedge.data.table_schema import SCHEMA_FILE, ColumnSchema, read_schema
from kdedge.models.graph_feed import GraphFeed, feed_samples
from kdedge_export.onnx_graph.graph_index import GraphIndex
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["feed_of_table_graph"]


def feed_of_table_graph(view: GraphIndex, name: str) -> tuple[TabularInput, GraphFeed]:
    """Describe the input of a graph that takes one float tensor `[N, columns]`.

    The graph takes the columns of a schema next to the file, in its order: numbers, and the places of categories.

    Args:
        view: the graph.
        name: path of the file.

    Raises:
        ModelFileError: the graph has other inputs.
        UsageError: the schema is missing, or has a different number of columns.
    """
    ports = [value for value in view.model.graph.input if value.name in view.inputs]
    kinds = [onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type) for port in ports]
    sizes = [[dim.dim_value for dim in port.type.tensor_type.shape.dim] for port in ports]
    if len(ports) != 1 or len(sizes[0]) != 2 or kinds[0].kind != "f":
        shown = ", ".join(f"{port.name} {kind}" for port, kind in zip(ports, kinds, strict=True))
        raise ModelFileError(
            f"{name} is not a model of tables: its inputs are {shown}. Expected one float tensor [N, columns], as "
            "skl2onnx writes for FloatTensorType."
        )
    beside = Path(name).with_name(SCHEMA_FILE)
    if not beside.is_file():
        raise UsageError(
            f"{name} does not contain the names of its columns. Put the {SCHEMA_FILE} of a run of kdedge train, with "
            "the columns and categories in the order of the model, next to it."
        )
    columns = read_schema(beside).used
    if sizes[0][1] not in (0, len(columns)):
        raise UsageError(f"{beside} has {len(columns)} columns, but {name} takes {sizes[0][1]}.")
    spec = TabularInput(tuple(_column(column) for column in columns))
    return spec, feed_samples(ports[0].name, kinds[0])


def _column(schema: ColumnSchema) -> TableColumn:
    """Return a column without an encoding, since the graph has its own."""
    if schema.kind == "categorical":
        unused = (0.0,) * len(schema.categories)
        return TableColumn(schema.name, "categorical", schema.unit, categories=schema.categories, reference=unused)
    has_range = schema.low is not None and schema.high is not None and schema.low < schema.high
    edges = (schema.low or 0.0, schema.high or 0.0) if has_range else ()
    return TableColumn(schema.name, "numeric", schema.unit, edges, reference=(0.0,) * has_range)
