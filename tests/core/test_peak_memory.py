"""Peak memory of the process."""

import pathlib
import types

import pytest

from kdjax.core import peak_memory as memory

STATUS = pathlib.Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.exists(), reason="Linux alone has this file")
def test_the_host_peak_is_that_of_the_kernel_in_bytes():
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    peak = 1024 * int(lines["VmHWM"].split()[0])
    assert memory.peak_memory()["host"] == pytest.approx(peak, rel=0.02)


def test_the_fullest_device_counts(monkeypatch):
    """CPU counts nothing; of two devices it is the one with the higher peak."""
    assert "device" not in memory.peak_memory()

    def device(peak):
        return types.SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": peak})

    monkeypatch.setattr(memory.jax, "local_devices", lambda: [device(5), device(9)])
    assert memory.peak_memory()["device"] == 9
