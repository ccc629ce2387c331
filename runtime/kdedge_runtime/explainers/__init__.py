"""Maps of models that have none, and a second opinion on those that have one: hide parts, ask again, compare.

```
occlusion    a square slides over the picture                  Zeiler and Fergus, ECCV 2014
rise         random soft masks                                 Petsiuk, Das and Saenko, BMVC 2018
lime         random superpixels, a local linear model          Ribeiro, Singh and Guestrin, KDD 2016
shap         superpixels share the answer fairly               Lundberg and Lee, NeurIPS 2017
scorecam     each channel of the target layer is a mask        Wang et al., CVPR Workshops 2020
```

All of them only ask the model, a few hundred times and more. What they hide becomes the model's mean colour, which is
zero once the graph has normalised it. The score is the class's probability (for Score-CAM its logit). Maps are signed
and raw, like the graph's own: positive cells speak for the class.
"""

from kdedge_runtime.explainers.estimate import Estimate, Explainer
from kdedge_runtime.explainers.registry import METHODS, make_explainer

__all__ = ["METHODS", "Estimate", "Explainer", "make_explainer"]
