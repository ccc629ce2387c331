"""What people say of the answers, kept on the device for the next training.

```
Verdict          one person's word on one answer
FeedbackStore    verdicts in an SQLite file that never grows beyond its cap
write_folder     verdicts as class folders, ready to train on
```
"""

from kdedge_runtime.feedback.class_folders import Written, write_folder
from kdedge_runtime.feedback.store import FeedbackError, FeedbackStore
from kdedge_runtime.feedback.verdict import Judgement, Verdict

__all__ = ["FeedbackError", "FeedbackStore", "Judgement", "Verdict", "Written", "write_folder"]
