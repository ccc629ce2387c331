"""Bounds of `kdedge validate` that an exported file misses on held-out samples."""

from kdedge_export.quantization import RECIPES, Tradeoff

__all__ = ["missed_bounds"]


def missed_bounds(name: str, tradeoff: Tradeoff) -> list[str]:
    """Return a phrase for each bound that the chosen file misses.

    A single sample is never reported, even if it exceeds the bound.

    Args:
        name: precision of the file.
        tradeoff: candidates of its export.
    """
    found, bounds = tradeoff.chosen.fidelity, RECIPES[name].bounds
    faults = []
    has_labels = found.accuracy is not None
    allowed = bounds.accuracy_drop_points if has_labels else 100 * (1 - bounds.agreement)
    if found.drop_points > max(allowed, 1.5 * 100 / tradeoff.samples):
        what = " points of accuracy" if has_labels else "% of the predictions"
        faults.append(f"{name} loses {found.drop_points:.1f}{what} ({allowed:g} allowed by kdedge validate)")
    if found.map_pearson is not None and found.map_pearson < bounds.map_pearson_mean:
        required = f"{bounds.map_pearson_mean:g} required by kdedge validate"
        faults.append(f"{name} maps correlate at {found.map_pearson:.3f} ({required})")
    return faults
