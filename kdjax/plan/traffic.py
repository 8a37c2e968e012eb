"""Collectives of a compiled program, read from its text."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_BITS = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8}
_CALL = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_COUNTED = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{} ]*\})\}")
# Between slices of TPUs the hosts do it: each chip sends to its host, and receives.
_HOSTS = re.compile(
    r"= \((.+?), u32\[\].* (send|recv)\(.*_xla_megascale_transfer_type=\"(\w+)\""
)
_BY_HOSTS = {kind.upper().replace("-", "_"): kind for kind in KINDS} | {
    "ONE_TO_ONE": "collective-permute"
}
_SLICES = re.compile(r"_xla_megascale_target=\"\{([\d,]+)\}")


class Collective(NamedTuple):
    """One collective of a step.

    kind: as in `KINDS`.
    size: bytes of the array that it makes, or of the one that it scatters.
    group: the number of devices that take part together.
    between: True where a group has devices of several slices or hosts.
    """

    kind: str
    size: int
    group: int
    between: bool

    @property
    def sent(self) -> float:
        """Bytes that each device sends, in a ring."""
        share = (self.group - 1) / self.group
        if self.kind == "all-reduce":
            return 2 * share * self.size
        return self.size if self.kind == "collective-permute" else share * self.size


def find_collectives(text: str, slice_of: Sequence[int]) -> list[Collective]:
    """The collectives of a program, in the order of its text.

    Args:
      text: HLO, as `jax.stages.Compiled.as_text` returns it.
      slice_of: the slice or host of each device, in the order of the mesh.
    """
    found = []
    for line in text.splitlines():
        if hosts := _HOSTS.search(line):
            shape, way, name = hosts.groups()
            found += _between_slices(shape, way, name, line, len({*slice_of}))
            continue
        call = _CALL.search(line)
        if call is None:
            continue
        shapes, kind, starts = call.groups()
        groups = _groups(line, len(slice_of))
        group = max(map(len, groups), default=1)
        arrays = _sizes(shapes)
        if starts and kind != "all-reduce" and len(arrays) > 1:
            # What it reads comes before what it makes.
            arrays = arrays[len(arrays) // 2 :]
        size = sum(arrays) * (group if kind == "reduce-scatter" else 1)
        between = any(len({slice_of[i] for i in g}) > 1 for g in groups)
        if group > 1:
            found.append(Collective(kind, size, group, between))
    return found


def _between_slices(
    shape: str, way: str, name: str, line: str, slices: int
) -> list[Collective]:
    """The collective of a transfer by hosts; none for its other end.

    An all-gather is found where it is received, all others where they are sent.
    """
    kind = _BY_HOSTS.get(name, name.lower())
    if (way == "recv") != (kind == "all-gather"):
        return []
    named = _SLICES.search(line)
    group = len(named[1].split(",")) if named else slices
    return [Collective(kind, sum(_sizes(shape)), group, True)]


def _sizes(shapes: str) -> list[int]:
    """The bytes of each array in the text of a shape."""
    sizes = []
    for name, dims in _ARRAY.findall(shapes):
        digits = re.sub(r"\D", "", name)
        bits = _BITS.get(name) or int(digits or 0)
        count = math.prod(map(int, filter(None, dims.split(","))))
        sizes.append(count * bits // 8)
    return sizes


def _groups(line: str, devices: int) -> list[list[int]]:
    """The devices of each group; all of them where the text names none."""
    if found := _COUNTED.search(line):
        shape, dims, order = (
            [int(x) for x in (text or "").split(",") if x] for text in found.groups()
        )
        numbers = np.arange(math.prod(dims)).reshape(dims)
        return numbers.transpose(order or None).reshape(shape).tolist()
    if found := _LISTED.search(line) or _PAIRS.search(line):
        texts = re.findall(r"\{([\d, ]*)\}", found[1])
        return [[int(x) for x in text.split(",")] for text in texts if text.strip()]
    return [list(range(devices))]
