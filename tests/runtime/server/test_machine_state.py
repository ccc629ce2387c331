"""Cached machine state."""

from pathlib import Path

import pytest

from kdedge_runtime.diagnostics.system_state import SystemState
from kdedge_runtime.server.live_view.machine_state import MachineMonitor

COOL, HOT = SystemState(40.0, None, None, (), (), None), SystemState(85.0, 600.0, 2400.0, ("throttled",), (), 3)


def test_state_is_cached_for_two_seconds() -> None:
    now, states = [0.0], [COOL, HOT]
    machine = MachineMonitor(read_state=lambda: states.pop(0), clock=lambda: now[0])
    assert [machine.state().board for _ in range(3)] == [COOL] * 3
    now[0] = 2.0
    assert [machine.state().board for _ in range(3)] == [HOT] * 3


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
def test_memory_is_of_this_process() -> None:
    memory = MachineMonitor(read_state=lambda: COOL).state().memory_mb
    status = Path("/proc/self/status").read_text()
    kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert memory == pytest.approx(kilobytes * 1.024e-3, rel=0.1)
