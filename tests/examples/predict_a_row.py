"""Classify and explain one row of a table on a device.

Needs `model.onnx`, a file for tables written by `kdedge export`, and `applications.csv`.
"""

import csv
from pathlib import Path

from kdedge_runtime import Model
from kdedge_runtime.modalities.table_column import row_sample

model = Model.load("model.onnx")
spec = model.metadata.input
with Path("applications.csv").open(newline="", encoding="utf-8") as file:
    row = next(csv.DictReader(file))  # texts by column name
sample = row_sample(tuple(row), tuple(row.values()))
explanation = model.predict(spec.preprocess(sample)[None])
assert explanation.saliency_map is not None  # None for a file exported with --method none
print(model.metadata.labels[explanation.scores[0].argmax()], explanation.scores[0].max())
for reason in spec.reasons(sample, explanation.saliency_map[0], 5):
    print(reason)
