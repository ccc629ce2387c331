"""Embedding teachers: encoders of any network, with a projection and prototypes fitted on labeled training samples.

The features of a classifier or encoder are centered, whitened within classes and projected. This separates classes
that it never saw better than the features themselves. Prototypes are the means of the normalized embeddings of a class.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.embedding_network import EmbeddingNetwork
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.models.trained_model import TrainedModel
from kdedge.training.compute_device import ComputeDevice, evaluation_batch
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.pooled_features import PooledEncoder
from kdedge.training.sample_store import SampleStore
from kdedge.training.teachers.teacher import NetworkTeacher
from kdedge_export.familiarity.discriminant import fit_discriminant
from kdedge_export.modalities import modality_of
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import evenly_spaced
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["choose_samples", "embedding_size", "make_embedding_teacher"]

_MAX_VALUES = 256
"""Maximum size of an embedding; see `.github/docs/benchmarks/embeddings.md`."""
_MAX_SAMPLES = 20_000
"""Maximum number of labeled samples that projection and prototypes are fitted on."""


def embedding_size(teacher: LoadedTeacher) -> int:
    """Return the size of a teacher's embedding, D.

    Raises:
        UsageError: the teacher is not a PyTorch model, or its pooled features are unknown.
    """
    model = _trained(teacher)
    if isinstance(model.model, EmbeddingNetwork):
        return int(model.model.similarity.prototypes.shape[1])
    encoder, example = _pooled_encoder(teacher, model), modality_of(model.input).example(model.input)
    with evaluating(encoder), torch.no_grad():
        return min(_MAX_VALUES, int(encoder(example).shape[1]))


def make_embedding_teacher(
    teacher: LoadedTeacher,
    student: InstrumentedModel,
    samples: SampleStore,
    compute: ComputeDevice,
    progress: ProgressCallback,
) -> NetworkTeacher:
    """Convert a model to a teacher of embeddings, and give its prototypes of the data's classes to the student.

    Args:
        teacher: PyTorch model; that of an embedding run keeps its own projection.
        student: embedding network with one prototype per class.
        samples: training samples; those without labels are not used.
        compute: device that computes the features.
        progress: called after every batch.

    Raises:
        UsageError: the teacher is not a PyTorch model, or its features are constant.
        DataError: a feature is not finite, or a class has no labeled sample.
    """
    model = _trained(teacher)
    assert isinstance(student.model, EmbeddingNetwork)
    prototypes = student.model.similarity.prototypes
    chosen = choose_samples(samples.targets, len(prototypes))
    labels = samples.targets[chosen].cpu()
    if isinstance(model.model, EmbeddingNetwork):
        encoder: nn.Module = copy.deepcopy(model.model.encoder)
        embeddings = _outputs(encoder, model.input, samples, chosen, compute, progress)
    else:
        pooled = _pooled_encoder(teacher, model)
        features = _outputs(pooled, model.input, samples, chosen, compute, progress)
        projection = _projection(features, labels, teacher)
        encoder = nn.Sequential(pooled, projection)
        with torch.no_grad():
            embeddings = projection(features)
    network = EmbeddingNetwork(encoder, *prototypes.shape)
    for each in (network.similarity.prototypes, prototypes):
        each.copy_(_class_means(embeddings, labels, len(prototypes)))
    return NetworkTeacher(InstrumentedModel(network, model.input, compute), compute)


def _trained(teacher: LoadedTeacher) -> TrainedModel:
    if not isinstance(teacher.model, TrainedModel):
        raise UsageError(
            f"{teacher.name} is a model file, but --task embedding needs a PyTorch teacher for its pooled features. "
            "Expected a run folder, or the name of a network with weights."
        )
    return teacher.model


def _pooled_encoder(teacher: LoadedTeacher, model: TrainedModel) -> PooledEncoder:
    """Return a copy of the teacher's network without its classifier."""
    example = modality_of(model.input).example(model.input)
    return PooledEncoder.of(copy.deepcopy(model.model), example, is_headless=teacher.classes == 0)


def choose_samples(targets: Tensor, classes: int) -> Tensor:
    """Return the indices of labeled samples, evenly spaced in each class if there are too many.

    Raises:
        DataError: a class has none.
    """
    per_class = max(1, _MAX_SAMPLES // classes)
    found = []
    for each in range(classes):
        members = (targets == each).nonzero()[:, 0]
        if not len(members):
            raise DataError(
                f"Class {each} has no labeled sample that can be read, so it has no prototype. Add samples, or remove "
                "the class."
            )
        found.append(members[torch.from_numpy(evenly_spaced(len(members), per_class)).to(members.device)])
    return torch.cat(found).sort().values


def _outputs(
    encoder: nn.Module,
    spec: InputSpec,
    samples: SampleStore,
    chosen: Tensor,
    compute: ComputeDevice,
    progress: ProgressCallback,
) -> Tensor:
    """Return the outputs `[n, D]` of an encoder on samples at these indices, on the CPU."""
    watched = InstrumentedModel(encoder, spec, compute, is_headless=True).eval()
    found: list[Tensor] = []
    done = 0
    for index, batch in samples.batches(torch.split(chosen, evaluation_batch(chosen.device))):
        with torch.no_grad(), compute.autocast():
            found.append(watched(batch).logits.float().cpu())
        done += len(index)
        progress("embedding by the teacher", done, len(chosen))
    return torch.cat(found)


def _projection(features: Tensor, labels: Tensor, teacher: LoadedTeacher) -> nn.Linear:
    """Fit the projection to discriminant axes."""
    found = fit_discriminant(features.numpy(), labels.numpy(), _MAX_VALUES)
    if found is None:
        raise UsageError(
            f"The features of the teacher {teacher.name} do not differ within or between the classes of the data. "
            "Expected a trained teacher, and two classes with several samples each."
        )
    weight = torch.from_numpy(found.projection.T.copy())
    projection = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        projection.weight.copy_(weight)
        projection.bias.copy_(torch.from_numpy(found.offset))
    return projection


def _class_means(embeddings: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean normalized embedding of each class, of length 1, `[K, D]`."""
    sums = torch.zeros(classes, embeddings.shape[1]).index_add_(0, labels, F.normalize(embeddings, dim=1))
    return F.normalize(sums, dim=1)
