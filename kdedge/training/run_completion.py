"""End of a training run: training, evaluation on the test samples, and the complete record."""

import signal
from pathlib import Path

from kdedge.data import Split
from kdedge.models.run_folder import BEST, LAST, RunRecord, write_run
from kdedge.training.interruption import stop_requests
from kdedge.training.run_callback import RunCallback
from kdedge.training.sample_store import load_evaluation_samples
from kdedge.training.trainer import Trainer
from kdedge_runtime.errors import DataError

__all__ = ["complete_run"]


def complete_run(
    trainer: Trainer, record: RunRecord, test: Split | None, folder: Path, callback: RunCallback, *, resume: bool
) -> RunRecord:
    """Train, evaluate on the test samples, and complete the record.

    Args:
        trainer: trainer; its sample stores are closed.
        record: record of the run without a result.
        test: test samples, or None.
        folder: run folder.
        callback: training callback.
        resume: True to continue from the folder's checkpoint.

    Returns:
        The record; its `result` is None if SIGTERM ended training before the last epoch.

    Raises:
        DataError: None of the test samples is readable.
    """
    try:
        with stop_requests() as must_stop:
            result = trainer.run(folder, callback, resume=resume, must_stop=must_stop)
    finally:
        trainer.batches.samples.close()
        trainer.evaluator.val.close()
    if result is None:
        if must_stop.signal == signal.SIGINT:
            raise KeyboardInterrupt  # the usual behavior of Ctrl-C, but after writing a checkpoint
        return record
    if test is not None:
        result["test"] = _test(trainer, test, record, folder, callback)
    record = record.finished(result)
    if trainer.train_step.group.is_main:
        write_run(folder, record)
    return record


def _test(
    trainer: Trainer, test: Split, record: RunRecord, folder: Path, callback: RunCallback
) -> dict[str, dict[str, float]]:
    """Compute the metrics of the best and last epoch on test samples, which no decision has used.

    Raises:
        DataError: None of the test samples is readable.
    """
    test_samples, problems = load_evaluation_samples(
        test,
        record.input,
        trainer.train_step.compute,
        trainer.train_step.group,
        callback.on_progress,
        beside=(trainer.batches.samples, trainer.evaluator.val),
    )
    if not len(test_samples):
        raise DataError(
            f"No test sample in {record.data['source']} is readable ({problems}). All epochs are "
            "done: restore the files and continue with --resume."
        )
    if problems:
        callback.on_warning(f"Test samples: {problems}")
    try:
        return trainer.test({"best": folder / BEST, "last": folder / LAST}, test_samples)
    finally:
        test_samples.close()
