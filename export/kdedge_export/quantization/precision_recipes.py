"""Registry of precision recipes by name."""

from kdedge_export.quantization.half_precision import FP16
from kdedge_export.quantization.precision_recipe import PrecisionRecipe
from kdedge_export.quantization.static import INT8
from kdedge_runtime.errors import UsageError

__all__ = ["RECIPES", "recipe_named"]

RECIPES: dict[str, PrecisionRecipe] = {recipe.name: recipe for recipe in (FP16, INT8)}
"""Recipes by the name of the precision, as used for `--precision`."""


def recipe_named(name: str) -> PrecisionRecipe:
    """Return the recipe of a precision.

    Raises:
        UsageError: there is no recipe with this name.
    """
    if name not in RECIPES:
        raise UsageError(f"There is no recipe for the precision {name!r}. Available: {', '.join(RECIPES)}.")
    return RECIPES[name]
