"""Peak memory of this process, on the host and on its devices."""

import sys

import jax


def peak_memory() -> dict[str, int]:
    """The peak so far in bytes: `host`, and `device`, the fullest one of this process.

    Backends that do not count, such as CPU, have no `device`. What earlier runs of the
    same process took counts too.
    """
    peaks = [stats.get("peak_bytes_in_use", 0) for stats in _device_stats()]
    found = {"host": _host_peak(), "device": max(peaks, default=0)}
    return {name: size for name, size in found.items() if size}


def _device_stats() -> list[dict[str, int]]:
    return [device.memory_stats() or {} for device in jax.local_devices()]


def _host_peak() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
