"""Classify and explain the first row of a table on a device.

Needs `model.onnx`, a file for tables written by `kdedge export`, and `applications.csv`.
"""

from kdedge_runtime import Model, predict_file

prediction, *_ = predict_file(Model.load("model.onnx"), "applications.csv")
print(prediction.label, prediction.score)
for reason in prediction.reasons():
    print(reason)
print("other columns:", prediction.other_contributions())
