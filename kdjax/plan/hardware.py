"""Accelerators by name, with public figures of each chip.

    v5e-256    256 chips of TPU v5e in one slice
    v5p-128    64 chips of TPU v5p: Cloud TPU counts the cores of v4 and v5p, two a chip
    h200x64    64 GPUs, eight on each host
    cpu-8      eight devices of this machine's processor, faked

TPU figures are of Google's pages (cloud.google.com/tpu/docs, one page a generation),
those of the H200 of NVIDIA's data sheet. Peaks are of dense bfloat16 products.
"""

import math
import re
from typing import NamedTuple

from kdjax.config import ConfigError, Run, near_names, require


class Chip(NamedTuple):
    """Public figures of one chip; 0 where there is none.

    memory: bytes.
    flops: bfloat16 operations a second.
    bandwidth: bytes a second of its memory.
    link: bytes a second, in one direction, to the chips of its slice or host.
    network: bytes a second, in one direction, to other slices or hosts.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    network: float


class Hardware(NamedTuple):
    """Devices to plan for.

    platform: tpu, cuda or cpu.
    topology: as the compiler names it.
    devices: their number, over all slices.
    """

    name: str
    chip: Chip
    platform: str
    topology: str
    slices: int
    devices: int


_GB, _T = 1e9, 1e12
_TPUS = {
    "v4": Chip("TPU v4", 32 * _GB, 275 * _T, 1228 * _GB, 300 * _GB, 0.0),
    "v5e": Chip("TPU v5e", 16 * _GB, 197 * _T, 819 * _GB, 200 * _GB, 3.1 * _GB),
    "v5p": Chip("TPU v5p", 95 * _GB, 459 * _T, 2765 * _GB, 600 * _GB, 0.0),
    "v6e": Chip("TPU v6e", 32 * _GB, 918 * _T, 1600 * _GB, 400 * _GB, 12.5 * _GB),
    "tpu7x": Chip("TPU 7x", 192 * _GB, 2307 * _T, 7380 * _GB, 600 * _GB, 0.0),
}
_GPUS = {
    "h200": Chip("H200", 141 * _GB, 989 * _T, 4800 * _GB, 450 * _GB, 50 * _GB),
}
_CPU = Chip("CPU", 0.0, 0.0, 0.0, 0.0, 0.0)
# Slices of the generations whose chips lie in a plane, and in a cube, by chips.
_PLANES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"}
_PLANES |= {128: "8x16", 256: "16x16"}
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"}
_CUBES |= {128: "4x4x8", 256: "4x8x8", 512: "8x8x8", 1024: "8x8x16"}
_ON_A_HOST = 8
EXAMPLES = ("v5e-256", "v6e-64", "v5p-128", "h200x8", "h200x64", "cpu-8")


def find_hardware(name: str, slices: int = 1) -> Hardware:
    """The hardware of a name.

    slices: of TPUs, each of the size of the name, joined by the network.

    Raises ConfigError with similar names where there is none.
    """
    require(slices >= 1, "slices", "a number >= 1", slices)
    if found := re.fullmatch(r"cpu-(\d+)", name):
        count = int(found[1])
        require(slices == 1, "slices", "1, of cpu", slices)
        require(1 <= count <= 512, "on", "cpu-1 to cpu-512", name)
        return Hardware(name, _CPU, "cpu", "", 1, count)
    if found := re.fullmatch(r"(\w+?)x(\d+)", name):
        if found[1] in _GPUS:
            return _gpus(name, found[1], int(found[2]), slices)
    if found := re.fullmatch(r"(\w+)-(\d+)", name):
        if found[1] in _TPUS:
            return _tpus(name, found[1], int(found[2]), slices)
    near = near_names(name, EXAMPLES)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    expected = f"a name such as {', '.join(EXAMPLES)}"
    raise ConfigError("on", expected, name, hint=hint)


def check_layout(run: Run, hardware: Hardware) -> None:
    """Refuse devices and batches of a run that do not divide on some hardware.

    Raises ConfigError naming the field.
    """
    compute, there, name = run.compute, hardware.devices, hardware.name
    require(compute.how == "jit", "compute.how", "jit, to plan", compute.how)
    data = compute.data or max(1, there // compute.fsdp)
    count = data * compute.fsdp
    field = "compute.data x compute.fsdp"
    require(count <= there, field, f"at most the {there} devices of {name}", count)
    divides = run.batch % count == 0
    require(divides, "batch", f"a multiple of {count} devices", run.batch)


def _tpus(name: str, generation: str, size: int, slices: int) -> Hardware:
    in_plane = generation in ("v5e", "v6e")
    # Google names slices of v4 and v5p by their cores.
    cores = 2 if generation in ("v4", "v5p") else 1
    shapes = _PLANES if in_plane else _CUBES
    sizes = [f"{generation}-{cores * chips}" for chips in shapes]
    chips = size // cores
    ok = size % cores == 0 and chips in shapes
    require(ok, "on", f"one of {', '.join(sizes)}", name)
    topology = f"{generation}:{shapes[chips]}"
    return Hardware(name, _TPUS[generation], "tpu", topology, slices, chips * slices)


def _gpus(name: str, kind: str, count: int, slices: int) -> Hardware:
    require(slices == 1, "slices", "1: a name of GPUs has them all", slices)
    hosts, local = math.ceil(count / _ON_A_HOST), min(count, _ON_A_HOST)
    ok = count >= 1 and count == hosts * local
    require(ok, "on", f"1 to {_ON_A_HOST} GPUs, or whole hosts of {_ON_A_HOST}", name)
    # Slices are what the fast links join: one host each.
    return Hardware(name, _GPUS[kind], "cuda", f"{hosts}x1x{local}", hosts, count)
