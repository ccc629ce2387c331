"""Familiarity: a score of how similar a sample is to the training samples, computed in the graph.

```
features        pooled features of a graph
discriminant    statistics of the training samples' features, and the score
graph           nodes that compute the score
threshold       largest score below which at most 5% of known samples lie
fitting         threshold of an exported file
```
"""

from kdedge_export.familiarity.fitting import FamiliaritySamples

__all__ = ["FamiliaritySamples"]
