"""Devices of hardware that is not there, as XLA's compilers describe them."""

import importlib.util
import pathlib
from typing import Any

from kdjax.config import ConfigError
from kdjax.plan.hardware import Hardware

# Wheels with the compiler of a platform, and the extra that installs them.
_WHEELS = {
    "tpu": ("libtpu", "plan-tpu"),
    "cuda": ("jax_plugins.xla_cuda12", "plan-gpu"),
}


def require_compiler(hardware: Hardware) -> None:
    """Refuse hardware whose compiler is not installed, and name the extra that has it.

    Nothing is imported.
    """
    if hardware.platform == "cpu":
        return
    module, extra = _WHEELS[hardware.platform]
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        reason = f"{hardware.name} needs its compiler: pip install 'kdjax[{extra}]'"
        raise ConfigError("on", reason=reason)


def environment(hardware: Hardware, exact: bool) -> dict[str, str]:
    """Variables of the process that compiles.

    exact: optimize as the hardware would. Else level O1, which compiles several times
        faster; its memory is an upper bound.
    """
    variables = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if hardware.platform == "cpu":
        return {**variables, "JAX_NUM_CPU_DEVICES": str(hardware.devices)}
    if hardware.platform == "tpu":
        # Else libtpu waits for the metadata server of a TPU machine.
        variables["TPU_SKIP_MDS_QUERY"] = "1"
    return variables if exact else {**variables, "JAX_OPTIMIZATION_LEVEL": "O1"}


def planned_devices(hardware: Hardware) -> list[Any]:
    """The devices, for a mesh; programs for them can be compiled and not run."""
    import jax
    from jax.experimental import topologies

    if hardware.platform == "cpu":
        return jax.devices()[: hardware.devices]

    options: dict[str, Any] = {}
    if hardware.platform == "tpu":
        name = {"topology_name": hardware.topology, "num_slices": hardware.slices}
        options = {**name, "platform": "tpu"}
    else:
        text = pathlib.Path(__file__).with_name("h200.txtpb").read_text()
        options = {"platform": "cuda", "target_config": text}
        options["topology"] = hardware.topology
    return list(topologies.get_topology_desc(**options).devices)


def slices_of(hardware: Hardware) -> list[int]:
    """The slice or host of each device, in the order of `planned_devices`."""
    each = hardware.devices // hardware.slices
    return [i // each for i in range(hardware.devices)]
