"""The one definition of a saliency map: trained against, exported, and validated."""

from kdedge_export.saliency.explained import ExplainedModel
from kdedge_export.saliency.find import find_head
from kdedge_export.saliency.head import Activation, Dense, Head

__all__ = ["Activation", "Dense", "ExplainedModel", "Head", "find_head"]
