"""Signals that stop a run."""

import os
import signal
import threading

import pytest

from kdedge_runtime.stream.runner import stopped_by_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_set_stop_and_handlers_are_restored(number: int) -> None:
    before, stop = signal.getsignal(number), threading.Event()
    with stopped_by_signals(stop):
        os.kill(os.getpid(), number)
        assert stop.wait(1)
        assert signal.getsignal(number) == before, "a second signal has its original effect"
    assert signal.getsignal(number) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="SIGHUP needs POSIX")
def test_ignored_sighup_stays_ignored() -> None:
    stop, before = threading.Event(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals(stop):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.2)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
