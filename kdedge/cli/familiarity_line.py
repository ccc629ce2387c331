"""Line on the familiarity of an exported file."""

from kdedge_runtime.familiarity import Familiarity

__all__ = ["describe_familiarity"]


def describe_familiarity(found: Familiarity) -> str:
    """Describe the threshold of familiarity, or the reason why there is none."""
    if found.threshold is None or found.most_rejected is None:
        return f"[-] no familiarity threshold ({found.method}): {found.why_not}"
    return (
        f"[✓] familiarity threshold {found.threshold:.3f} ({found.method}): rejects {found.rejected} of "
        f"{found.known:,} validation samples (upper bound {found.most_rejected:.1%} at 95% confidence)"
    )
