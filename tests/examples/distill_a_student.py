"""Train a teacher, distill a student, export it with its saliency map, validate the files and explain images.

Needs `data/`, a folder with one folder of images per class, or with `train/` and `val/` of such folders. Two epochs
are a trial: without `epochs` their number is chosen from the data.
"""

import kdedge

teacher = kdedge.train("data", "small:resnet8", output="runs/teacher", epochs=2)
student = kdedge.distill("data", teacher, "small:resnet8", output="runs/student", epochs=2)
files = kdedge.export(student, precisions=["int8"])
validation = kdedge.validate(files)
explained = kdedge.explain(files, ["photo.png"], "explanations")

print(f"{files.fp32}: logits within {files.logits_error:.1e} of PyTorch, maps within {files.map_error:.1e}")
for check in validation.report.checks:
    print(f"{check.outcome:>14}  {check.name}")
print(f"report: {validation.page}")
print(f"{explained[0].file}: {explained[0].prediction.label}, overlay in {explained[0].written}")
