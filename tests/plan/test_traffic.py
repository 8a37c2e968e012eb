"""Collectives in the text of programs, written by hand and by the compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.plan.traffic import Collective, find_collectives

TWO_SLICES = (0, 0, 0, 0, 1, 1, 1, 1)
LINES = {
    "%r = f32[16]{0} all-reduce(%x), channel_id=1, replica_groups={}, to_apply=%add": (
        Collective("all-reduce", 64, 8, True)
    ),
    "%r = f32[16]{0} all-reduce(%x), replica_groups={{0,1,2,3},{4,5,6,7}}": (
        Collective("all-reduce", 64, 4, False)
    ),
    "%r = (f32[2,3]{1,0}, bf16[10]{0}) all-reduce-start(%x, %y), "
    "replica_groups=[2,4]<=[8]": Collective("all-reduce", 44, 4, False),
    "%r = bf16[8,4]{1,0} all-gather(%x), dimensions={0}, "
    "replica_groups=[4,2]<=[2,4]T(1,0)": Collective("all-gather", 64, 2, True),
    "%r = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8]": (
        Collective("all-gather", 32, 4, False)
    ),
    "%r = f32[2]{0} reduce-scatter(%x), replica_groups={{0,1},{2,3},{4,5},{6,7}}": (
        Collective("reduce-scatter", 16, 2, False)
    ),
    "%r = u8[5]{0} collective-permute(%x), source_target_pairs={{0,4},{4,0}}": (
        Collective("collective-permute", 5, 2, True)
    ),
    # Between slices of TPUs, as libtpu 0.0.42 writes it.
    "%send = (f32[64,1,128]{2,1,0:T(1,128)}, u32[], token[]) send(%x, %after-all), "
    'channel_id=2, frontend_attributes={_xla_megascale_target="{1,2,3,4}x{0:7}",'
    '_xla_megascale_transfer_type="REDUCE_SCATTER"}': (
        Collective("reduce-scatter", 32768, 4, True)
    ),
    "%send = (f32[38,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%x, %after-all), "
    'channel_id=2, frontend_attributes={_xla_megascale_target="{1,2}x{0:7}",'
    '_xla_megascale_transfer_type="ALL_REDUCE"}': (
        Collective("all-reduce", 155648, 2, True)
    ),
    "%recv = (f32[2,4,1024]{2,1,0:T(4,128)}, u32[], token[]) recv(%after-all), "
    'channel_id=1, frontend_attributes={_xla_megascale_target="{1,2}x{0:7}",'
    '_xla_megascale_transfer_type="ALL_GATHER"}': (
        Collective("all-gather", 32768, 2, True)
    ),
    "%send = (f32[32,1024]{1,0:T(8,128)}, u32[], token[]) send(%x, %after-all), "
    'channel_id=1, frontend_attributes={_xla_megascale_transfer_type="ONE_TO_ONE"}': (
        Collective("collective-permute", 131072, 2, True)
    ),
}
NONE = (
    "%r = f32[16]{0} all-reduce-done(%x)",
    "%r = f32[16]{0} all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}",
    "%r = f32[16]{0} add(%x, %all-reduce.1)",
    'metadata={op_name="jit(step)/all-reduce(x)"}',
    "%recv = (f32[38,8,128]{2,1,0:T(8,128)}, u32[], token[]) recv(%after-all), "
    'frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}',
    "%send = (f32[1,4,1024]{2,1,0:T(4,128)}, u32[], token[]) send(%x, %after-all), "
    'frontend_attributes={_xla_megascale_transfer_type="ALL_GATHER"}',
    "%send-done = token[] send-done(%send), channel_id=2",
)


@pytest.mark.parametrize("line", LINES)
def test_a_line(line):
    assert find_collectives(line, TWO_SLICES) == [LINES[line]]


@pytest.mark.parametrize("line", NONE)
def test_lines_without_one(line):
    assert find_collectives(line, TWO_SLICES) == []


def test_bytes_that_a_device_sends():
    """In a ring an all-reduce is a reduce-scatter and an all-gather."""
    assert Collective("all-reduce", 800, 8, False).sent == 1400
    assert Collective("all-gather", 800, 8, False).sent == 700
    assert Collective("reduce-scatter", 800, 8, False).sent == 700
    assert Collective("collective-permute", 800, 2, False).sent == 800


def test_a_gradient_over_a_mesh():
    """The gradient of replicated weights over a divided batch is one all-reduce."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    over = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())

    def loss(w, x):
        return jnp.mean((x @ w) ** 2)

    step = jax.jit(jax.grad(loss), in_shardings=(whole, over), out_shardings=whole)
    text = step.lower(jnp.ones((16, 4)), jnp.ones((32, 16))).compile().as_text()
    found = find_collectives(text, TWO_SLICES)
    assert {x.kind for x in found} == {"all-reduce"}
    assert sum(x.size for x in found) == 16 * 4 * 4
    assert all(x.group == 8 and x.between for x in found)
