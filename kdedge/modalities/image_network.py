"""Choose the network of an image model and its input: size and map resolution."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdedge.config.defaults import choose_size, requested_stride_factor, stride_factor
from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex, typical_size
from kdedge.models.model_names import canonical_name
from kdedge.models.model_registry import build_model, make_spec, pretrained_input
from kdedge.models.model_spec import ModelSpec
from kdedge.models.pretrained import published_name
from kdedge.models.stem import output_strides
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.training.teachers.teacher_loading import init_source
from kdedge_runtime.modalities.image import ImageInput, require_image

__all__ = ["choose_image_network"]


def choose_image_network(
    request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex, *, on_cpu: bool
) -> tuple[ModelSpec, ImageInput]:
    """Choose the model and its input: size from the teacher or the images, and the map resolution.

    Args:
        request: training options.
        teachers: teachers; the first one determines the resizing rule.
        dataset: dataset index.
        on_cpu: True to choose a smaller default size.
    """
    name = canonical_name(request.model)
    natural = pretrained_input(published_name(name, None if request.weights is None else Path(request.weights)))
    from_images = choose_size(typical_size(dataset.train), on_cpu=on_cpu)
    own_size = natural.height if request.is_pretrained else from_images
    if teachers:
        # The teacher needs the images resized as in its own training, so the student uses the same rule.
        geometry = require_image(teachers[0].input, f"The teacher {teachers[0].name}")
        # An encoder has no accuracy at its own size that a student of the same size could keep.
        size = request.size or (own_size if teachers[0].classes == 0 else geometry.height)
    else:
        # Pretrained weights expect a center crop; a model trained from scratch uses the whole image.
        geometry = natural if request.is_pretrained else replace(natural, crop_fraction=1.0)
        size = request.size or own_size
    spec_input = replace(geometry, height=size, width=size, mean=natural.mean, std=natural.std)
    fresh_stem = not request.is_pretrained
    if request.init == "teacher":
        init_summary = init_source(teachers).spec
        fresh_stem = init_summary.fresh_stem
    plain = make_spec(name, len(dataset.labels), fresh_stem=fresh_stem)
    strides = output_strides(build_model(plain, size), size, fresh=fresh_stem)
    if request.output_stride is None:
        factor = stride_factor(size, strides)
    else:
        factor = requested_stride_factor(request.output_stride, strides)
    return replace(plain, stride_factor=factor), spec_input
