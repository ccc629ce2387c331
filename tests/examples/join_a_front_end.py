"""Put the graph of a front end before a network for log-mel features, which gives a teacher for PCM."""

import onnx
import onnx.compose

front = onnx.compose.add_prefix(onnx.load("front_end.onnx"), "front/")
teacher = onnx.compose.merge_models(front, onnx.load("network.onnx"), io_map=[("front/output", "features")])
teacher.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16_000  # one second
onnx.save(teacher, "teacher.onnx")
