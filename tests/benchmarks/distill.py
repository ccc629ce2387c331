"""Benchmark distillation speed against a minimal PyTorch loop and against the arithmetic limit.

```
python tests/benchmarks/distill.py              # the cases that suit this machine
python tests/benchmarks/distill.py cifar-kd imagenet-kd
```

Runs from a checkout with only torch, torchvision, numpy, pillow and safetensors installed. Images are random, since no
case evaluates the result. Prints one JSON line per case:

- `seconds`: kdedge's epoch without validation, median of the measured epochs;
- `bare_seconds`: epoch of the minimal loop, measured alternately; `ratio` is the median of their quotients;
- `floor_seconds`: floating-point operations of teacher and student, at the rate of a large matrix product.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in (ROOT, ROOT / "export", ROOT / "runtime"):
    sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from kdedge.config.resolved_config import ResolvedConfig  # noqa: E402
from kdedge.models.model_registry import build_model  # noqa: E402
from kdedge.models.model_spec import ModelSpec  # noqa: E402
from kdedge.training.augmentation import Augmentation  # noqa: E402
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan  # noqa: E402
from kdedge.training.augmentation.image_augmenter import ImageAugmenter  # noqa: E402
from kdedge.training.builder import build_trainer_parts  # noqa: E402
from kdedge.training.compute_device import ComputeDevice, choose_device  # noqa: E402
from kdedge.training.distributed import ProcessGroup  # noqa: E402
from kdedge.training.epoch import TrainState, train_epoch  # noqa: E402
from kdedge.training.instrumented_model import InstrumentedModel  # noqa: E402
from kdedge.training.objective import make_objective  # noqa: E402
from kdedge.training.sample_store import DeviceSamples, SampleStore, StreamedSamples  # noqa: E402
from kdedge.training.teachers.teacher import NetworkTeacher  # noqa: E402
from kdedge.training.teachers.teacher_cache import TeacherCache  # noqa: E402
from kdedge.training.trainer import Trainer  # noqa: E402
from kdedge_runtime.modalities.image import ImageInput  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KD, KD_MAP = {"ce": 0.1, "kd": 0.9}, {"ce": 0.1, "kd": 0.9, "map": 20.0}


@dataclass(frozen=True)
class Case:
    """Recipe and input size of a benchmark case."""

    teacher: str
    student: str
    size: int
    classes: int
    images: int
    batch: int
    loss: dict[str, float]
    cached: bool = False
    streamed: bool = False
    cuda: bool = True
    epochs: int = 3


CIFAR = Case("small:resnet32x4", "small:resnet8x4", 32, 100, 50_000, 64, KD)
IMAGENET = Case("torchvision:resnet34", "torchvision:resnet18", 224, 1000, 12_800, 128, KD)
CPU = Case("small:resnet56", "small:resnet20", 32, 10, 1024, 64, KD, cuda=False)
CASES = {
    "cifar-kd": CIFAR,
    "cifar-kd-cached": replace(CIFAR, cached=True),
    "cifar-kd-map": replace(CIFAR, loss=KD_MAP),
    "cifar-kd-map-cached": replace(CIFAR, loss=KD_MAP, cached=True),
    "imagenet-kd": IMAGENET,
    "imagenet-kd-map": replace(IMAGENET, loss=KD_MAP),
    "imagenet-kd-streamed": replace(IMAGENET, images=2560, streamed=True),
    "cpu-kd": CPU,
    "cpu-kd-cached": replace(CPU, cached=True),
    "cpu-kd-map": replace(CPU, loss=KD_MAP),
    "cpu-kd-map-cached": replace(CPU, loss=KD_MAP, cached=True),
    "cpu-kd-streamed": replace(CPU, student="torchvision:resnet18", teacher="torchvision:resnet34", size=224,
                               images=96, batch=16, streamed=True, classes=1000),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="cases to run [default: those for this machine]")
    parser.add_argument("--epochs", type=int, help="number of measured epochs per loop")
    parser.add_argument("--eager", action="store_true", help="do not compile or capture (GPU only)")
    options = parser.parse_args()
    on_cuda = torch.cuda.is_available()
    compute = choose_device(compiled=on_cuda and not options.eager)
    peak = matmul_flops_per_s(compute)
    for name in options.cases or [name for name, case in CASES.items() if case.cuda == on_cuda]:
        case = CASES[name] if options.epochs is None else replace(CASES[name], epochs=options.epochs)
        print(json.dumps({"case": name, **measure(case, compute, peak)}), flush=True)


def measure(case: Case, compute: ComputeDevice, peak: float) -> dict[str, Any]:
    """Measure epochs of kdedge and of the minimal loop alternately."""
    torch.manual_seed(0)
    teacher, student, bare_student = (network(name, case) for name in (case.teacher, case.student, case.student))
    floor = flops_per_image(teacher, student, case) * case.images / peak
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = random_pictures(case)
        images: SampleStore = DeviceSamples(*pictures, compute.device)
        if case.streamed:
            images = streamed(pictures, case, compute, folder)
        trainer = kdedge_trainer(case, teacher, student, images, compute, folder)
        ours = epochs_of(trainer, compute)
        bare = bare_loop(case, teacher, bare_student, DeviceSamples(*pictures, compute.device), compute)
        for _ in range(2):  # the first epochs compile, fill caches and select algorithms
            ours()
            bare()
        pairs = [(ours(), bare()) for _ in range(case.epochs)]
    seconds, bare_seconds = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    images_seen = trainer.batches.per_epoch * case.batch
    return {
        "seconds": round(seconds, 4),
        "bare_seconds": round(bare_seconds, 4),
        "ratio": round(statistics.median(mine / theirs for mine, theirs in pairs), 4),
        "floor_seconds": round(floor, 4),
        "images": images_seen,
        "images_per_s": round(images_seen / seconds, 1),
        "batch": case.batch,
        "device": compute.name,
        "compiled": compute.compiled,
        "torch": torch.__version__,
    }


def network(name: str, case: Case) -> nn.Module:
    return build_model(ModelSpec(name, case.classes), case.size)


def random_pictures(case: Case) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (case.images, case.size, case.size, 3), dtype=np.uint8)
    return pixels, rng.integers(0, case.classes, case.images)


def streamed(pictures: tuple[Any, Any], case: Case, compute: ComputeDevice, folder: Path) -> SampleStore:
    """Write the same images as JPEG files of a typical size, and stream them."""
    from PIL import Image

    from kdedge.data import FileSample, Split
    from kdedge.data.streaming import SampleStream

    samples = []
    for index, pixels in enumerate(pictures[0]):
        path = folder / f"{index:06}.jpg"
        Image.fromarray(pixels).resize((case.size * 2, case.size * 2)).save(path, quality=90)
        samples.append(FileSample.below(folder, path))
    return StreamedSamples(
        SampleStream(Split(tuple(samples), tuple(pictures[1].tolist())), spec_of(case)), compute.device
    )


def spec_of(case: Case) -> ImageInput:
    return ImageInput(case.size, case.size, MEAN, STD)


def kdedge_trainer(
    case: Case, teacher: nn.Module, student: nn.Module, images: SampleStore, compute: ComputeDevice, folder: Path
) -> Trainer:
    config = ResolvedConfig(
        epochs=1000,
        batch_size=case.batch,
        learning_rate=0.05,
        loss=case.loss,
        settings={},
        measured=(),
        layers={},
        temperature=4.0,
        optimizer="sgd",
        weight_decay=5e-4,
        warmup_fraction=0.1,
        layer_decay=1.0,
        fit_head=False,
        augmentation=Augmentation(),
        cached_views=1 if case.cached else 0,
        seed=0,
    )
    spec = spec_of(case)
    val = DeviceSamples(*random_pictures(replace(case, images=2)), compute.device)
    augmenter = ImageAugmenter(config.augmentation, spec.height, spec.width)
    views = AugmentationPlan(augmenter, len(images), compute.device, seed=config.seed, kept=config.cached_views)
    parts = build_trainer_parts(
        InstrumentedModel(student, spec, compute),
        NetworkTeacher(InstrumentedModel(teacher, spec, compute), compute),
        images,
        val,
        make_objective(config.loss, config.settings),
        views,
        ProcessGroup(),
        compute,
        classes=case.classes,
        task="classify",
        batch_size=config.batch_size,
        recipe=config.recipe,
        cache=TeacherCache(folder / "answers", {"case": repr(case)}) if case.cached else None,
    )
    return Trainer(*parts, config)


def epochs_of(trainer: Trainer, compute: ComputeDevice) -> Callable[[], float]:
    """Return a function that trains the next epoch and returns its duration."""
    epoch = 0

    def next_epoch() -> float:
        nonlocal epoch
        synchronise(compute)
        started = time.perf_counter()
        train_epoch(trainer.train_step, trainer.batches, trainer.config, TrainState(({},) * epoch))
        synchronise(compute)
        epoch += 1
        return time.perf_counter() - started

    return next_epoch


def bare_loop(
    case: Case, teacher: nn.Module, student: nn.Module, data: DeviceSamples, compute: ComputeDevice
) -> Callable[[], float]:
    """Return a typical manual KD loop: images on the device with crop and flip, teacher, student, SGD."""
    device = compute.device
    laid_out = {"device": device, "memory_format": torch.channels_last}
    teacher.to(**laid_out).eval().requires_grad_(False)  # type: ignore[call-overload]  # unknown to the type stubs
    student.to(**laid_out).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    pad = case.size // 8

    def next_epoch() -> float:
        synchronise(compute)
        started = time.perf_counter()
        student.train()
        total = torch.zeros((), device=device)
        order = torch.randperm(case.images, device=device)
        for index in torch.split(order[: case.images // case.batch * case.batch], case.batch):
            x = (data.pixels[index].permute(0, 3, 1, 2).float() - mean) / std
            x = augmented(x, pad)
            with compute.autocast():
                with torch.no_grad():
                    taught = teacher(x).float()
                logits = student(x).float()
            soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(taught / 4, 1), reduction="batchmean") * 16
            loss = 0.1 * F.cross_entropy(logits, data.targets[index]) + 0.9 * soft
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.detach()
        float(total)
        synchronise(compute)
        return time.perf_counter() - started

    return next_epoch


def augmented(x: Tensor, pad: int) -> Tensor:
    """Apply a random crop to every image, and flip half of them."""
    count, _, height, width = x.shape
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    top, left = torch.randint(0, 2 * pad + 1, (2, count, 1), device=x.device)
    rows, columns = top + torch.arange(height, device=x.device), left + torch.arange(width, device=x.device)
    mirrored = torch.rand(count, 1, device=x.device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    batch = torch.arange(count, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flops_per_image(teacher: nn.Module, student: nn.Module, case: Case) -> float:
    """Count the teacher's forward pass unless it is cached, and the student's forward and backward pass."""
    x = torch.randn(1, 3, case.size, case.size)
    counter = FlopCounterMode(display=False)
    with counter:
        if not case.cached:
            with torch.no_grad():
                teacher.eval()(x)
        torch.autograd.backward(student.eval()(x).sum())
    student.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def matmul_flops_per_s(compute: ComputeDevice) -> float:
    """Measure the rate of a large matrix product in the precision of forward passes."""
    side = 8192 if compute.device.type == "cuda" else 1024
    a, b = torch.randn(2, side, side, device=compute.device, dtype=torch.bfloat16 if compute.bf16 else torch.float32)
    times = []
    for _ in range(6):
        synchronise(compute)
        started = time.perf_counter()
        a @ b
        synchronise(compute)
        times.append(time.perf_counter() - started)
    return float(2 * side**3 / min(times))


def synchronise(compute: ComputeDevice) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


if __name__ == "__main__":
    main()
