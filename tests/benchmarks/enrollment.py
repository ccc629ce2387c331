"""Measure embeddings on classes that the student was never trained on.

```
python tests/benchmarks/enrollment.py gtsrb22 --no-flip --size 64 --weights tf_efficientnet_lite0.safetensors
python tests/benchmarks/enrollment.py tiny-imagenet-20 --size 64 --weights tf_efficientnet_lite0.safetensors
```

Each fold trains without every fifth class (`kdedge distill --task embedding --leave-out …`) and exports fp32 and int8
files. Five training images of each left-out class are enrolled, as `kdedge-run enroll` does, and the validation images
of these classes are recognized among them. This is repeated with other images. `false accepts` are validation images of
the classes of training, none of which is enrolled, at the threshold of the file. Error rates of pairs are those of two
validation images of left-out classes (`kdedge_export.metrics.verification`).

`ImageNet features` are the teacher's pooled features without a projection, as computed by timm, and `teacher` is its
embedding. Neither shares code with the student's files except for the projection. Figures are of the last epoch, and
nothing is selected on left-out classes. Prints one JSON line per fold and model, and a table of the means over folds.
Complete runs in --out are not repeated.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from quality import kdedge

from kdedge.data import DatasetIndex, decode, index_dataset
from kdedge_export.familiarity.discriminant import fit_discriminant
from kdedge_export.familiarity.fitting import familiarity_of
from kdedge_export.metrics.verification import true_accepts_at, verify
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Floats, Pixels

FOLDS, ENROLLED = 5, 5
FIGURES = {
    "accuracy": "accuracy %",
    "accepted": "accepted %",
    "false_accepts": "false accepts %",
    "equal_error": "EER %",
    "true_accepts": "TAR @ 1 % FAR",
}
Encoder = Callable[[Pixels], Floats]
