"""Score-CAM: each channel of the target layer is a mask, and weighs what the model says of the picture behind it.

Source: Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops
2020; weights as in pytorch-grad-cam: softmax over the channels of the class's logit.
"""

import numpy as np

from kdedge_runtime.explainers.estimate import Estimate
from kdedge_runtime.explainers.image_grid import enlarge
from kdedge_runtime.explainers.masked_scorer import Doubles, Probe
from kdedge_runtime.util.arrays import Floats

__all__ = ["score_cam"]

_FEWEST_CHANNELS = 32
_FLAT = 1e-8
"""Keeps a channel that is the same everywhere from dividing by zero: it hides all."""


def score_cam(probe: Probe, activations: Floats) -> Estimate:
    """The mean of the channels, weighted by softmax of the logit that remains when only a channel's places are seen.

    Channels are taken in random order; the error is that of a sample without replacement, zero when none was left out.

    Args:
        probe: the picture, with the class's logit as its score.
        activations: of the target layer, `[C, h, w]`.

    Returns:
        A map `[h, w]`; all positive where the activations are, as the weights are.
    """
    channels = activations[probe.rng.permutation(len(activations))]
    least = channels.min(axis=(1, 2), keepdims=True)
    masks = (channels - least) / (channels.max(axis=(1, 2), keepdims=True) - least + _FLAT)
    scores: list[Doubles] = []
    done = 0
    for size in probe.batches(len(channels), min(_FEWEST_CHANNELS, len(channels))):
        scores.append(probe.ask(enlarge(masks[done : done + size], probe.height, probe.width)))
        done += size
    logits = np.concatenate(scores)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    mean = np.tensordot(weights, channels[:done].astype(np.float64), axes=1)
    # The linearised error of a ratio of sums (Cochran, Sampling Techniques, 1977, section 2.11).
    apart = weights[:, None, None] * (channels[:done] - mean)
    left_out = 1 - done / len(channels)
    return probe.estimate(mean, np.sqrt((apart**2).sum(axis=0) * left_out * done / max(done - 1, 1)))
