"""Saliency maps: one definition for training, export and validation."""

from kdedge_export.saliency.attention_explainer import ByAttention
from kdedge_export.saliency.autograd_head import Tail, find_tail, named_tail
from kdedge_export.saliency.cam_explainer import ByCells
from kdedge_export.saliency.closed_form_head import Activation, Dense, Head
from kdedge_export.saliency.explained_model import ExplainedModel, Look
from kdedge_export.saliency.explainer_choice import DEFAULT_METHODS, explain
from kdedge_export.saliency.head_finder import find_head
from kdedge_export.saliency.methods import METHODS

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "Activation",
    "ByAttention",
    "ByCells",
    "Dense",
    "ExplainedModel",
    "Head",
    "Look",
    "Tail",
    "explain",
    "find_head",
    "find_tail",
    "named_tail",
]
