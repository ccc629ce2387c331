"""Black-box explainers: perturb the input and observe the score. They work for any model, with or without its own map.

```
occlusion    sliding square                                    Zeiler and Fergus, ECCV 2014
rise         random soft masks                                 Petsiuk, Das and Saenko, BMVC 2018
lime         segments,    local linear model                   Ribeiro, Singh and Guestrin, KDD 2016
shap         segments,    Shapley values                       Lundberg and Lee, NeurIPS 2017
scorecam     channels of the target layer as masks             Wang et al., CVPR Workshops 2020
```

Each explanation takes several hundred evaluations or more. Hidden areas are filled with the model's mean color, which
is zero after normalization. The score is the class probability (for Score-CAM the logit). Maps are raw and signed, like
those of the graph: positive values support the class.
"""

from kdedge_runtime.explainers.estimate import Explainer, MapEstimate
from kdedge_runtime.explainers.registry import make_explainer, methods_for

__all__ = ["MapEstimate", "Explainer", "make_explainer", "methods_for"]
