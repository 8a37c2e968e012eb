"""Specialists with a dustbin class, Hinton et al. 2015, arXiv 1503.02531, section 5."""

import functools

import jax.numpy as jnp
import numpy as np

from kdjax import losses, targets
from kdjax.config import require
from kdjax.core.types import Array, Model, Strategy
from kdjax.strategies.networks import apply_network, init_networks
from kdjax.strategies.supervision import label_loss, require_members, require_teacher


def specialist(student: Model, *, classes: int, cluster: tuple = ()) -> Strategy:
    """A specialist: the classes of a cluster, and one dustbin class for all others.

    L = CE(y', p'), where y' and p' have the classes outside the cluster as one.

    It keeps a logit for each class, so that it starts from the generalist with
    `model.weights`, as in the paper. The probability of the dustbin is the sum over
    its classes. Images are drawn evenly; the paper draws half from the cluster, and
    corrects the dustbin for that.

    Args:
      classes: of the data.
      cluster: class ids, such as those that the generalist confuses.

    Raises:
      ConfigError: a cluster of no class or of all, or with one that is none.
    """
    ids = _dustbin_map(cluster, classes, "strategy.options.cluster")

    def init(key, batch):
        return init_networks({"student": student}, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        logits = _merged(output.logits, ids)
        own, partner = jnp.asarray(ids)[batch.labels], batch.partner_labels
        if partner is not None:
            partner = jnp.asarray(ids)[partner]
        value = label_loss(logits, batch._replace(labels=own, partner_labels=partner))
        return {"student": value}, (state, {"hard": value})

    return Strategy(init, loss)


def with_specialists(
    student: Model,
    *,
    classes: int,
    clusters: tuple = (),
    weight: float = 1.0,
    label_weight: float = 0.0,
    temperature: float = 2.0,
) -> Strategy:
    """A generalist and specialists as the teachers of one student.

    L = label_weight * CE(y, p) + weight * (
        KL(p_generalist || p) + sum over active specialists m of KL(p_m || p'_m))

    p'_m is the student's distribution with the classes outside the cluster m as one.
    A specialist is active where the generalist's most probable class is in its
    cluster. The paper finds such a p for each image; here the student learns it.

    Args:
      classes: of the data.
      clusters: class ids of each specialist as text, such as `0,4,6`. Member 0 of the
        teachers is the generalist, and the specialists follow in this order.
      temperature: of every KL, each with the factor of its square.

    Raises:
      ConfigError: no cluster, one that does not fit, or another number of teachers.
    """
    at = "strategy.options.clusters"
    require(bool(clusters), at, "class ids of each specialist, as 0,4,6", clusters)
    maps = [_dustbin_map(_parse(x, at), classes, at) for x in clusters]
    kl = functools.partial(losses.softmax_kl, temperature=temperature)

    def init(key, batch):
        require_teacher(batch, classes)
        require_members(batch, 1 + len(maps))
        return init_networks({"student": student}, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        generalist, *specialists = require_members(batch)
        soft = kl(output.logits, generalist.logits)
        likely = generalist.logits.argmax(-1)
        special, used = jnp.zeros_like(soft), jnp.zeros_like(soft)
        for teacher, ids in zip(specialists, maps, strict=True):
            active = jnp.asarray(ids < ids.max())[likely]
            ours, theirs = (
                _merged(x.logits, ids, temperature) for x in (output, teacher)
            )
            special += active * kl(ours, theirs)
            used += active
        parts = {"generalist": soft.mean(), "specialists": special.mean()}
        total = weight * (parts["generalist"] + parts["specialists"])
        if label_weight:
            parts["hard"] = label_loss(output.logits, batch)
            total += label_weight * parts["hard"]
        parts["active specialists"] = used.mean()
        return {"student": total}, (state, parts)

    return Strategy(init, loss, labels=bool(label_weight))


def _merged(logits: Array, ids: np.ndarray, temperature: float = 1.0) -> Array:
    """Logits of the cluster and of the dustbin, which comes last."""
    count, ids_array = int(ids.max()) + 1, jnp.asarray(ids)
    return targets.map_logits(logits, ids_array, classes=count, temperature=temperature)


def _parse(text: object, at: str) -> tuple[int, ...]:
    """Class ids out of a text such as `0,4,6`."""
    parts = str(text).split(",")
    ok = all(part.strip().isdigit() for part in parts)
    require(ok, at, "class ids such as 0,4,6", text)
    return tuple(int(part) for part in parts)


def _dustbin_map(cluster: tuple, classes: int, at: str) -> np.ndarray:
    """Class ids `[classes]` of a specialist: 0, 1, ... of its cluster, then the
    dustbin."""
    whole = all(isinstance(x, int) and 0 <= x < classes for x in cluster)
    ok = whole and 0 < len(set(cluster)) == len(cluster) < classes
    expected = f"different class ids below {classes}, and not all of them"
    require(ok, at, expected, cluster)
    ids = np.full(classes, len(cluster), np.int32)
    ids[list(cluster)] = np.arange(len(cluster))
    return ids
