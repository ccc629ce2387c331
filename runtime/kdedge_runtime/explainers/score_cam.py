"""Score-CAM: channels of the target layer, weighted by the score of the image masked with each.

Source: Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops
2020. Weights are the softmax of the class logit over the channels, as in pytorch-grad-cam.
"""

import numpy as np

from kdedge_runtime.explainers.estimate import MapEstimate
from kdedge_runtime.explainers.image_grid import enlarge
from kdedge_runtime.explainers.masked_scorer import Doubles, MaskedScorer
from kdedge_runtime.util.arrays import Floats

__all__ = ["score_cam"]

_MIN_CHANNELS = 32
_FLAT = 1e-8
"""Avoids division by zero for constant channels, whose mask hides everything."""


def score_cam(scorer: MaskedScorer, activations: Floats) -> MapEstimate:
    """Compute the mean of the channels, weighted by the softmax of the logit under each channel's mask.

    Channels are evaluated in random order. The standard error includes the finite population correction and is zero if
    all channels are evaluated.

    Args:
        scorer: probe of the image, with the class logit as its score.
        activations: activations of the target layer, `[C, h, w]`.

    Returns:
        A map `[h, w]`; non-negative for non-negative activations.
    """
    channels = activations[scorer.rng.permutation(len(activations))]
    least = channels.min(axis=(1, 2), keepdims=True)
    masks = (channels - least) / (channels.max(axis=(1, 2), keepdims=True) - least + _FLAT)
    scores: list[Doubles] = []
    done = 0
    for size in scorer.batches(len(channels), min(_MIN_CHANNELS, len(channels))):
        scores.append(scorer.score(enlarge(masks[done : done + size], scorer.height, scorer.width)))
        done += size
    logits = np.concatenate(scores)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    mean = np.tensordot(weights, channels[:done].astype(np.float64), axes=1)
    # Linearized error of a ratio estimator (Cochran, Sampling Techniques, 1977, section 2.11).
    apart = weights[:, None, None] * (channels[:done] - mean)
    left_out = 1 - done / len(channels)
    return scorer.estimate(mean, np.sqrt((apart**2).sum(axis=0) * left_out * done / max(done - 1, 1)))
