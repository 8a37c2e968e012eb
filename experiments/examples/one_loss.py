"""One loss in your own JAX code: its value, its gradient, and a mask of examples.

python experiments/examples/one_loss.py
"""

import jax
import jax.numpy as jnp

from kdjax import losses


def distillation(
    student: jax.Array, teacher: jax.Array, labels: jax.Array, mask: jax.Array
) -> jax.Array:
    """Hinton's loss: a tenth labels, the rest the teacher at temperature 4.

    student, teacher: logits, [batch, classes]. labels: int [batch]. mask: bool [batch].
    """
    soft = losses.softmax_kl(student, teacher, temperature=4.0)
    hard = losses.hard_cross_entropy(student, labels)
    return jnp.mean(0.9 * soft + 0.1 * hard, where=mask)


def main() -> jax.Array:
    """Print the loss of 8 random examples, 2 of them masked, and its gradient norm."""
    keys = jax.random.split(jax.random.key(0), 2)
    student, teacher = (jax.random.normal(key, (8, 10)) for key in keys)
    labels, mask = jnp.arange(8) % 10, jnp.arange(8) < 6
    loss = jax.jit(jax.value_and_grad(distillation))
    value, gradient = loss(student, teacher, labels, mask)
    print(f"loss {value:.4f}, gradient norm {jnp.linalg.norm(gradient):.4f}")
    return gradient


if __name__ == "__main__":
    main()
