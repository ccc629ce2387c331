"""Line on the familiarity of an exported file."""

from kdedge_runtime.familiarity import Familiarity

__all__ = ["describe_familiarity"]


def describe_familiarity(found: Familiarity) -> str:
    """Describe the threshold of familiarity, or the reason why there is none."""
    if found.threshold is None or found.most_rejected is None:
        return f"[-] no threshold for unknown samples (familiarity by {found.method}): {found.why_not}"
    return (
        f"[✓] unknown below familiarity {found.threshold:.3f} ({found.method}): {found.rejected} of {found.known:,} "
        f"known validation samples, at most {100 * found.most_rejected:.1f} % (95 %)"
    )
