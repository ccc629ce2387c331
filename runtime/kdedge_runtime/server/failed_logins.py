"""Rate limiting and logging of wrong tokens."""

import logging
import threading
import time
from collections import OrderedDict

__all__ = ["FailedLogins"]

_log = logging.getLogger(__name__)
PAUSE_S = 1.0
"""Delay after each wrong token, in the client's thread. An address has at most eight such threads."""
_MAX_ADDRESSES = 256


class FailedLogins:
    """Counts wrong tokens of the most recent addresses."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def slow(self, host: str) -> None:
        """Count a wrong token and pause. The 1st, 2nd, 4th, 8th, … attempt of an address is logged."""
        with self._lock:
            count = self._counts.pop(host, 0) + 1
            self._counts[host] = count
            if len(self._counts) > _MAX_ADDRESSES:
                self._counts.popitem(last=False)
        if count & (count - 1) == 0:
            _log.warning("%s sent a wrong token (%d so far)", host, count)
        time.sleep(PAUSE_S)
