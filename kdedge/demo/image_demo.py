"""Demonstration on rendered scenes with exact object masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from kdedge.config.train_config import TrainConfig
from kdedge.demo.demo_scenario import DemoScenario, DemoSizes, Masks
from kdedge_export.scenes import LABELS, render_scene
from kdedge_runtime.sources.synthetic import SyntheticSource

__all__ = ["IMAGE"]

_SIZE_PX = 56
_CAMERA_PX = 384
_BATCH = 64


class ImageDemo(DemoScenario):
    """Scenes of one object each on varied backgrounds."""

    noun = "scenes"
    evidence = "object"
    labels = LABELS
    # 3,200 validation images make a one-point bound significant, even if int8 changes a few dozen predictions.
    sizes = DemoSizes(train=300, val=40, unseen=400, teacher_epochs=16, student_epochs=14, frames=240)
    live_source = "synthetic:"
    next_data = "kdedge train DATA --model resnet18"

    def write(self, root: Path, train: int, val: int, seed: int) -> dict[str, Masks]:
        """Write scenes as PNG files; see `DemoScenario.write`."""
        masks: dict[str, Masks] = {}
        for side, count in (("train", train), ("val", val)):
            for number, label in enumerate(LABELS):
                (root / side / label).mkdir(parents=True)
                generator = np.random.default_rng((seed, side == "val", number))
                for index in range(count):
                    scene = render_scene(label, generator, _SIZE_PX)
                    name = f"{side}/{label}/{index:04d}.png"
                    Image.fromarray(scene.image).save(root / name, compress_level=1)
                    if side == "val":
                        masks[name] = scene.mask
        return masks

    def teacher(self, data: Path) -> TrainConfig:
        """Return the options of a residual network of 0.34 M parameters."""
        return TrainConfig(
            str(data), "small:resnet10w16", size=_SIZE_PX, batch_size=_BATCH, epochs=self.sizes.teacher_epochs
        )

    def student(self, data: Path, teacher: Path) -> TrainConfig:
        """Return the options of a student of half the width."""
        return TrainConfig(
            str(data),
            "small:resnet10w8",
            teacher=(str(teacher),),
            size=_SIZE_PX,
            batch_size=_BATCH,
            epochs=self.sizes.student_epochs,
        )

    def source(self, out: Path) -> SyntheticSource:
        """Create a square synthetic camera."""
        return SyntheticSource(height=_CAMERA_PX, width=_CAMERA_PX, frames=self.sizes.frames, seed=7)


IMAGE = ImageDemo()
