"""Loss terms for distillation, as pure functions of a `LossInputs`; a run minimizes their weighted sum."""

from kdedge.losses.loss_term import LossTerm
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["LOSS_TERMS", "LossTerm"]

LOSS_TERMS: Registry[LossTerm] = Registry(
    "loss term",
    "kdedge.losses",
    {
        "ce": "kdedge.losses.cross_entropy:TERM",
        "kd": "kdedge.losses.kd:TERM",
        "ls": "kdedge.losses.logit_standardization:TERM",
        "dkd": "kdedge.losses.dkd:TERM",
        "dist": "kdedge.losses.dist:TERM",
        "rse": "kdedge.losses.relative_squared_error:TERM",
        "rsekd": "kdedge.losses.relative_squared_distillation:TERM",
        "at": "kdedge.losses.attention_transfer:TERM",
        "hint": "kdedge.losses.fitnets:TERM",
        "cosine": "kdedge.losses.cosine:TERM",
        "rkd": "kdedge.losses.rkd:TERM",
        "cat": "kdedge.losses.cat_kd:TERM",
        "e2": "kdedge.losses.e2kd:TERM",
        "map": "kdedge.losses.top_class_map:TERM",
        "mapall": "kdedge.losses.all_class_maps:TERM",
    },
)
"""Terms of `--loss` by name; other packages add terms with an entry point of the group `kdedge.losses`."""
