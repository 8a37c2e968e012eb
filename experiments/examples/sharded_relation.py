"""A relation loss over a batch that is divided over all devices.

    python experiments/examples/sharded_relation.py

RKD compares every pair of the global batch. Under `jit` with sharded inputs that needs
nothing: the compiler adds the communication.
"""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kdjax import losses


def main() -> tuple[float, float]:
    """Print RKD's loss on one device, and with `jit` on all."""
    devices = jax.devices()
    batch = 8 * len(devices)
    keys = jax.random.split(jax.random.key(0), 2)
    student, teacher = (jax.random.normal(key, (batch, 16)) for key in keys)
    one = losses.rkd_distance(student, teacher).mean()

    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    divided = jax.device_put((student, teacher), rows)
    every = jax.jit(lambda a, b: losses.rkd_distance(a, b).mean())(*divided)
    print(f"1 device: {one:.6f}, {len(devices)} devices: {every:.6f}")
    return float(one), float(every)


if __name__ == "__main__":
    main()
