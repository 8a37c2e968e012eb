"""Labels and teacher outputs that strategies share."""

import jax.numpy as jnp
import numpy as np

from kdjax.core.types import TopTargets
from kdjax.strategies.supervision import require_teacher, task_loss
from tests.strategies.methods.tapped import batch_of, cross_entropy, refused, wide


def test_the_task_of_mixed_labels():
    """label_weight * CE of both labels + soft_weight * T^2 KL(teacher || student)."""
    batch = batch_of(partner_labels=jnp.zeros(5, int), mix_weight=jnp.float32(0.3))
    logits = jnp.asarray(np.random.default_rng(4).normal(size=(5, 3)), jnp.float32)
    found = task_loss(logits, batch, 0.5, 2.0, 4.0)
    ours, theirs = wide(logits), wide(batch.targets.logits)
    hard = 0.3 * cross_entropy(ours, batch.labels)
    hard += 0.7 * cross_entropy(ours, batch.partner_labels)
    p = np.exp(theirs / 4) / np.exp(theirs / 4).sum(-1, keepdims=True)
    q = np.exp(ours / 4) / np.exp(ours / 4).sum(-1, keepdims=True)
    soft = 16 * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(found, (0.5 * hard + 2 * soft).mean(), rtol=1e-5)
    assert task_loss(logits, batch._replace(targets=None), 0.0, 0.0, 4.0) == 0


def test_a_teacher_of_all_classes():
    batch = batch_of()
    expected = "teacher: expected a teacher with the logits of all classes, got"
    one = jnp.zeros((5, 1))
    top = TopTargets(one, one.astype(int), one[:, 0], {})
    for targets, got in ((None, "'none'"), (top, "'the top-k classes'")):
        error = refused(require_teacher, batch._replace(targets=targets))
        assert error == f"{expected} {got}"
    error = refused(require_teacher, batch, 4)
    assert error == "teacher: expected as many classes as the student (4), got 3"
