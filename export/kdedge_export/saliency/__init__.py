"""Saliency maps: one definition for training, export and validation."""

from kdedge_export.saliency.by_attention import ByAttention
from kdedge_export.saliency.by_cells import ByCells
from kdedge_export.saliency.explained import ExplainedModel, Look
from kdedge_export.saliency.explaining import DEFAULT_METHODS, explain
from kdedge_export.saliency.find import find_head
from kdedge_export.saliency.head import Activation, Dense, Head
from kdedge_export.saliency.methods import METHODS
from kdedge_export.saliency.tail import Tail, find_tail, named_tail

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
