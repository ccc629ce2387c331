"""Syntax of losses: `ce:0.1,kd:0.9,mapall:20` on the command line, a table in a recipe file."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdedge.losses import LOSS_TERMS
from kdedge_runtime.errors import UsageError

__all__ = ["LARGEST", "LossSpec", "parse_loss", "read_loss"]


LARGEST = 1e9
"""Exclusive upper bound of settings and weights; products of larger numbers overflow float32."""


@dataclass(frozen=True)
class LossSpec:
    """Weighted sum of loss terms."""

    weights: dict[str, float | None]
    """Mapping from term name to weight; None for a weight that is measured before training."""
    settings: dict[str, dict[str, float | int]] = field(default_factory=dict)
    """Settings of terms besides their weights."""

    def renamed(self, names: Mapping[str, str]) -> "LossSpec":
        """Replace terms, with the same weights and settings; terms that are not in `names` stay."""
        weights = {names.get(name, name): weight for name, weight in self.weights.items()}
        return LossSpec(weights, {names.get(name, name): options for name, options in self.settings.items()})


def parse_loss(text: str) -> LossSpec:
    """Parse a weighted sum such as `ce:0.1,kd:0.9,mapall:20`; a term without a weight gets its default.

    Raises:
        UsageError: A term is unknown or repeated, or a weight is not a number above zero.
    """
    weights: dict[str, float | None] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition(":"))
        _require_term(name, repr(text))
        if name in weights:
            raise UsageError(f"The loss {text!r} contains {name!r} twice. Expected every term once.")
        weights[name] = _weight(weight, name, repr(text)) if weight else LOSS_TERMS[name].weight
    return LossSpec(weights)


def read_loss(table: Any, where: str) -> LossSpec:
    """Read the table `[loss]` of a recipe: `kd = 0.9`, or `mapall = { weight = 20, classes = 16 }`.

    Args:
        table: value from the TOML file.
        where: location for error messages.

    Raises:
        UsageError: A term or setting is unknown, or a value is not a number above zero.
    """
    if not isinstance(table, dict) or not table:
        raise UsageError(f"{where} must be a table of terms, such as ce = 0.1 and kd = 0.9.")
    weights: dict[str, float | None] = {}
    settings: dict[str, dict[str, float | int]] = {}
    for name, value in table.items():
        _require_term(name, where)
        options = dict(value) if isinstance(value, dict) else {"weight": value}
        weight = options.pop("weight", None)
        weights[name] = LOSS_TERMS[name].weight if weight is None else _weight(weight, name, where)
        defaults = LOSS_TERMS[name].settings
        for option, number in options.items():
            if option not in defaults:
                near = difflib.get_close_matches(option, [*defaults, "weight"], n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise UsageError(
                    f"{where}: term {name!r} has no setting {option!r}.{hint} Valid settings: "
                    f"{', '.join(['weight', *defaults])}."
                )
            kind = type(defaults[option])
            if not _is_number(number) or not 0 < number < LARGEST or kind(number) != number:
                whole = "a whole number" if kind is int else "a number"
                raise UsageError(f"{where}: {option} of term {name!r} must be {whole} above zero; got {number!r}.")
            settings.setdefault(name, {})[option] = kind(number)
    return LossSpec(weights, settings)


def _require_term(name: str, where: str) -> None:
    if name not in LOSS_TERMS:
        near = difflib.get_close_matches(name, LOSS_TERMS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"Unknown loss term {name!r} in {where}.{hint} Valid terms: {', '.join(LOSS_TERMS)}.")


def _weight(value: Any, name: str, where: str) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = float("nan")
    if isinstance(value, bool) or not 0 < weight < LARGEST:
        raise UsageError(f"The weight of loss term {name!r} in {where} must be a number above zero.")
    return weight


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
