"""User feedback on predictions, stored on the device for later training.

```
Verdict               feedback on one prediction
FeedbackStore         feedback in an SQLite file with a size limit
write_class_folders   export to class folders for training
```
"""

from kdedge_runtime.feedback.class_folders import write_class_folders
from kdedge_runtime.feedback.database import FeedbackError
from kdedge_runtime.feedback.latest_entries import FeedbackSummary, LatestEntries
from kdedge_runtime.feedback.store import FeedbackStore
from kdedge_runtime.feedback.verdict import Judgment, Verdict

__all__ = [
    "FeedbackError",
    "FeedbackStore",
    "FeedbackSummary",
    "Judgment",
    "LatestEntries",
    "Verdict",
    "write_class_folders",
]
