"""Streaming returns the same images as decoding, in the requested order, and shuts down cleanly."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch
from PIL import Image

from kdedge.data import Split, decode, index_dataset
from kdedge.data.streaming import SampleStream, fits_in_memory
from kdedge_runtime.errors import DataError, KdedgeError
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(height=16, width=24, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic")
COUNT = 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy JPEGs of two classes; read-only."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(COUNT):
        path = root / f"train/{'ab'[index % 2]}/{index:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30 + index, 50, 3), dtype=np.uint8)).save(path)
    (root / "test").symlink_to(root / "train")
    return root


@pytest.fixture(scope="module")
def split(photos: Path) -> Split:
    test = index_dataset(photos).test
    assert test is not None
    return test


@pytest.fixture(scope="module")
def stream(split: Split) -> Iterator[SampleStream]:
    """Shared stream, so that its workers start once."""
    stream = SampleStream(split, SPEC, workers=2)
    yield stream
    stream.close()


def shuffled(seed: int, size: int = 6) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(COUNT).tolist()
    return [order[start : start + size] for start in range(0, COUNT, size)]


def test_stream_describes_the_split(stream: SampleStream, split: Split) -> None:
    assert len(stream) == COUNT
    assert stream.names == tuple(sample.name for sample in split.samples)
    assert stream.targets.dtype == np.int64
    assert tuple(stream.targets.tolist()) == split.targets


def test_pixels_equal_decode_in_the_requested_order(stream: SampleStream, split: Split) -> None:
    images = decode(split, SPEC).samples
    for order in (shuffled(1), shuffled(2), [[3, 3, 0], [39], [0]], []):
        batches = list(stream.batches(order))
        assert [len(batch) for batch in batches] == [len(indices) for indices in order]
        for batch, indices in zip(batches, order, strict=True):
            assert batch.dtype == torch.uint8
            np.testing.assert_array_equal(batch.numpy(), images[indices])


def test_aborted_epoch_does_not_affect_the_next(stream: SampleStream, split: Split) -> None:
    images = decode(split, SPEC).samples
    next(stream.batches(shuffled(3)))
    for batch, indices in zip(stream.batches(shuffled(4)), shuffled(4), strict=True):
        np.testing.assert_array_equal(batch.numpy(), images[indices])


def test_global_random_state_is_unchanged(stream: SampleStream) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(stream.batches(shuffled(5)))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_workers_persist_until_the_stream_is_closed(split: Split) -> None:
    others = set(multiprocessing.active_children())
    stream = SampleStream(split, SPEC, workers=2)
    list(stream.batches(shuffled(6)))
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    list(stream.batches(shuffled(7)))
    assert set(multiprocessing.active_children()) - others == workers
    stream.close()
    assert not set(multiprocessing.active_children()) - others
    assert len(list(stream.batches(shuffled(8)))) == len(shuffled(8))
    stream.close()


def test_missing_or_damaged_file_is_a_single_sentence_error(tmp_path: Path) -> None:
    for index in range(8):
        path = tmp_path / f"{'ab'[index % 2]}/{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (index, 0, 0)).save(path)
    train = index_dataset(tmp_path, val_fraction=0.01).train
    stream = SampleStream(train, SPEC, workers=1)
    order = [[index] for index in range(len(train))]
    assert len(list(stream.batches(order))) == len(train)
    gone, damaged = (Path(str(train.samples[index])) for index in (1, 3))
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(DataError) as caught:
        list(stream.batches(order))
    message = f"{gone} cannot be read: No such file or directory. Restore the file and continue with --resume, or start"
    assert str(caught.value) == f"{message} again without it."
    gone.write_bytes(content)
    damaged.write_bytes(damaged.read_bytes()[:50])
    batches = stream.batches(order)
    assert [int(next(batches)[0, 0, 0, 0]) for _ in range(3)] == [int(train.samples[i].name[2]) for i in range(3)]
    with pytest.raises(DataError, match=rf"{damaged} is truncated or damaged"):
        next(batches)


def test_shards_can_be_streamed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for index in range(12):
            picture = io.BytesIO()
            Image.new("RGB", (24, 16), (index, 0, 0)).save(picture, "PNG")
            for name, content in ((f"{index}.png", picture.getvalue()), (f"{index}.cls", b"%d" % (index % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    train = index_dataset(tmp_path).train
    stream = SampleStream(train, SPEC, workers=1)
    (batch,) = stream.batches([range(len(train))])
    stream.close()
    assert [f"train.tar/{red}.png" for red in batch[:, 0, 0, 0].tolist()] == [s.name for s in train.samples]


def test_killed_worker_is_a_single_sentence_error(split: Split) -> None:
    before = set(multiprocessing.active_children())
    batches = SampleStream(split, SPEC, workers=1).batches([[0, 1]] * 500)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(KdedgeError, match="decoding process has died"):
        list(batches)


TRAINING = """
import sys, threading, time
from kdedge.data import index_dataset
from kdedge.data.streaming import SampleStream
from kdedge_runtime.modalities.image import ImageInput

def name_workers(stream):  # as soon as they are there: the signals come while some have hardly begun
    while stream._loader is None or stream._loader._iterator is None:
        time.sleep(0.001)
    print(*[worker.pid for worker in stream._loader._iterator._workers], flush=True)

def main():
    stream = SampleStream(index_dataset(sys.argv[1]).test, ImageInput(16, 16, (0.5,) * 3, (0.5,) * 3), workers=2)
    threading.Thread(target=name_workers, args=(stream,)).start()
    while True:
        for _ in stream.batches([[0, 1, 2]] * 100):
            time.sleep(0.01)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_workers_exit_with_the_main_process(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text(TRAINING)
    mains = {}
    for sent in (signal.SIGINT, signal.SIGKILL):
        with (tmp_path / sent.name).open("w") as err:
            command = [sys.executable, tmp_path / "training.py", photos]
            mains[sent] = subprocess.Popen(command, stdout=PIPE, stderr=err, text=True, start_new_session=True)
    workers = []
    for sent, main in mains.items():
        assert main.stdout is not None
        workers += [int(pid) for pid in main.stdout.readline().split()]
        assert all(signal.SIGINT in withheld(pid) for pid in workers[-2:])  # not even during startup
        if sent == signal.SIGINT:
            os.killpg(main.pid, sent)  # as a terminal does on Ctrl-C: the workers receive it too
        else:
            main.kill()
        main.communicate(timeout=240)
    assert len(workers) == 4
    deadline = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, workers))
    # Message of the main process, which the command line shortens.
    assert (tmp_path / "SIGINT").read_text().count("Traceback") == 1


def withheld(pid: int) -> set[int]:
    """Return the signals that a process blocks or ignores."""
    lines = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    bits = int(lines["SigBlk"], 16) | int(lines["SigIgn"], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("count", "side", "memory_gb", "expected"),
    [
        (50_000, 32, 1, True),  # CIFAR: 0.15 GB
        (1_281_167, 224, 80, False),  # ImageNet: 193 GB
        (1_281_167, 224, 400, True),
        (1_281_167, 224, 300, False),  # fits, but leaves no memory for anything else
    ],
)
def test_datasets_larger_than_half_of_the_memory_are_streamed(
    count: int, side: int, memory_gb: int, expected: bool
) -> None:
    assert fits_in_memory(count, ImageInput(side, side, (0.5,) * 3, (0.5,) * 3), memory_gb * 10**9) is expected
