"""Demonstrations on drawn samples. `DEMOS` maps a modality to its scenario."""

from kdedge.demo.demo_scenario import DemoScenario
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["DEMOS"]

DEMOS: Registry[DemoScenario] = Registry(
    "demonstration",
    "kdedge.demos",
    {
        "image": "kdedge.demo.image_demo:IMAGE",
        "timeseries": "kdedge.demo.timeseries_demo:TIMESERIES",
        "tabular": "kdedge.demo.tabular_demo:TABULAR",
    },
)
"""Scenarios by modality."""
