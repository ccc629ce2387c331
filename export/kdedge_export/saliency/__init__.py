"""Saliency maps: the reference definition for training, export and validation."""

from kdedge_export.saliency.attention_explainer import AttentionExplainer
from kdedge_export.saliency.autograd_head import AutogradHead, autograd_head_at, find_autograd_head
from kdedge_export.saliency.cam_explainer import CAMExplainer
from kdedge_export.saliency.closed_form_head import ActivationLayer, ClosedFormHead, DenseHeadLayer
from kdedge_export.saliency.cosine_layer import CosineLayer, find_cosine_layer
from kdedge_export.saliency.dense_explainer import DenseExplainer
from kdedge_export.saliency.explained_model import ExplainedModel, ForwardOutput
from kdedge_export.saliency.explainer_choice import DEFAULT_METHODS, make_explained
from kdedge_export.saliency.head_finder import find_head
from kdedge_export.saliency.methods import METHODS

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "ActivationLayer",
    "AttentionExplainer",
    "CAMExplainer",
    "CosineLayer",
    "DenseExplainer",
    "DenseHeadLayer",
    "ExplainedModel",
    "ClosedFormHead",
    "ForwardOutput",
    "AutogradHead",
    "make_explained",
    "find_cosine_layer",
    "find_head",
    "find_autograd_head",
    "autograd_head_at",
]
