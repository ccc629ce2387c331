"""Training of an ensemble of trees into a run folder, which serves as a teacher."""

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from kdedge.config.augmentation_settings import Augmentation
from kdedge.config.resolved_config import ResolvedConfig
from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex, load
from kdedge.data.readers.table_files import schema_of
from kdedge.modalities.tabular_network import fit_input
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import RunRecord, lock_run, write_run
from kdedge.models.trees import trees_file
from kdedge.models.trees.boosting import Boosting
from kdedge.models.trees.ensemble import TreeEnsemble, mark_missing
from kdedge.models.trees.lightgbm_trees import LightgbmTrees
from kdedge.models.trees.xgboost_trees import XgboostTrees
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.run_callback import RunCallback
from kdedge.training.training_data import data_record
from kdedge_runtime.errors import UsageError
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.files import file_sha256

__all__ = ["fit_trees"]

_RATE = 0.05
_ROUNDS = 2000
_TAKEN = frozenset(
    {"data", "model", "group_by", "target", "schema", "task", "epochs", "lr", "seed", "samples_per_class", "leave_out"}
)
"""Options that apply to trees."""


def fit_trees(request: TrainConfig, dataset: DatasetIndex, out: Path, callback: RunCallback) -> RunRecord:
    """Train trees with early stopping on the validation rows, and write the run.

    Args:
        request: training options; `epochs` is the maximum number of rounds, and `lr` the shrinkage of each.
        dataset: index of a table.
        out: run folder to write, which is free.
        callback: training callback.

    Raises:
        UsageError: an option applies to networks only.
        MissingDependency: the library is not installed.
    """
    if unused := sorted(request.given.keys() - _TAKEN - {"recipe_sha256"}):
        raise UsageError(f"--{unused[0].replace('_', '-')} applies to networks, not to {request.model}. Remove it.")
    started = time.monotonic()
    spec = fit_input(dataset, schema_of(dataset.train))
    data = load(dataset, spec, progress=callback.on_progress)
    if data.problems:
        callback.on_warning(str(data.problems))
    classes = len(dataset.labels) if TASKS[dataset.task].has_classes else 0
    library: type[XgboostTrees] | type[LightgbmTrees] = XgboostTrees if request.model == "xgboost" else LightgbmTrees
    train, val = (
        (mark_missing(np.asarray(side.samples, np.float32), spec), side.targets) for side in (data.train, data.val)
    )
    boosting = Boosting(
        train,
        val,
        [column.name for column in spec.features],
        [column.kind == "categorical" for column in spec.features],
        classes=classes,
        rate=request.lr or _RATE,
        rounds=request.epochs or _ROUNDS,
        seed=request.seed or 0,
    )
    trees, rounds = library.fit(boosting)
    file = trees_file(out, request.model)
    task = TRAINING_TASKS[dataset.task]
    with lock_run(out):
        trees.save(file)
        ensemble = TreeEnsemble(file, file_sha256(file), spec, dataset.labels, dataset.task, len(dataset.labels), trees)
        logits, _ = ensemble(np.asarray(data.val.samples, np.float32))
        found = task.metrics(torch.from_numpy(logits), torch.from_numpy(data.val.targets))
        best = {"epoch": rounds} | {f"val_{name}": value for name, value in found.items()}
        config = ResolvedConfig(
            epochs=rounds,
            batch_size=len(data.train),
            learning_rate=boosting.rate,
            loss={"ce" if classes else "rse": 1.0},
            settings={},
            measured=(),
            layers={},
            temperature=1.0,
            optimizer="boosting",
            weight_decay=0.0,
            warmup_fraction=0.0,
            layer_decay=1.0,
            fit_head=False,
            augmentation=Augmentation(shift=0, flip=False, photometric=0),
            cached_views=0,
            seed=boosting.seed,
        )
        record = RunRecord(
            kind="train",
            model=ModelSpec(request.model, len(dataset.labels)),
            input=spec,
            labels=dataset.labels,
            data=data_record(request, dataset, len(data.train), len(data.val)),
            recipe=asdict(config),
            request=request.given,
            device="cpu",
            task=dataset.task,
            result={"best": best, "last": best, "seconds": time.monotonic() - started},
        )
        write_run(out, record)
    counts = f"{len(data.train):,} for training, {len(data.val):,} for validation"
    lines = [
        ("samples", f"{counts}, {classes} classes" if classes else counts),
        ("trees", f"{request.model}, {counted(rounds, 'round')}, {ensemble.bytes / 1e6:.2f} MB"),
    ]
    callback.on_plan(lines, [], rounds, task.unit(dataset.labels))
    return record
