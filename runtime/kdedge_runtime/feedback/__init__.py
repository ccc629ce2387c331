"""User feedback on predictions, stored on the device for later training.

```
Verdict          feedback on one prediction
FeedbackStore    feedback in an SQLite file with a size limit
write_folder     export to class folders for training
```
"""

from kdedge_runtime.feedback.class_folders import FeedbackSummary, write_class_folders, write_unknown
from kdedge_runtime.feedback.store import FeedbackError, FeedbackStore
from kdedge_runtime.feedback.verdict import Judgment, Verdict

__all__ = [
    "FeedbackError",
    "FeedbackStore",
    "Judgment",
    "Verdict",
    "FeedbackSummary",
    "write_class_folders",
    "write_unknown",
]
