"""Contrastive representation distillation (CRD), Tian et al. 2020, arXiv 1910.10699."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core import collectives
from kdjax.core.types import Array, Model, Strategy
from kdjax.models import from_linen
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    apply_frozen,
    find_tap,
    require_teacher,
    task_loss,
)


def crd(
    student: Model,
    *,
    examples: int,
    axis_name: str | None,
    tap: str = "embedding",
    teacher_tap: str = "",
    weight: float = 0.8,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
    negatives: int = 4096,
    width: int = 128,
    sharpness: float = 0.07,
    momentum: float = 0.5,
) -> Strategy:
    """CRD: an image's two embeddings are alike, and unlike those of other classes.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + weight * (noise-contrastive loss of student and of teacher)

    Two linear heads make the embeddings. A memory holds the last ones of every training
    image: the student's for the teacher's loss, and the reverse. The constants Z are
    set at the first step.

    Args:
      examples: number of training examples, which the memory has a row for each.
      tap, teacher_tap: features `[batch, ...]` of each network. Empty: as the student.
      temperature: of the KL.
      negatives: images of other classes to compare with, drawn with replacement; fewer
        where there are fewer examples. The published number is 16384.
      width: length of an embedding.
      sharpness: temperature of the contrastive loss.
      momentum: share of the old row when the memory is renewed.

    Raises:
      ConfigError: fewer than 2 examples, no negatives, or a tap that is none.
    """
    at = "strategy.options"
    require(examples >= 2, "data.train", "at least 2 examples", examples)
    require(negatives >= 1, f"{at}.negatives", "at least 1", negatives)
    require(width >= 1, f"{at}.width", "at least 1", width)
    require(sharpness > 0, f"{at}.sharpness", "a number > 0", sharpness)
    require(0 <= momentum <= 1, f"{at}.momentum", "a number in [0, 1]", momentum)
    count, head = min(negatives, examples - 1), from_linen(nn.Dense(width))

    def features(output, batch):
        """The inputs of the two heads."""
        ours = find_tap(output, tap, f"{at}.tap")
        name, target = teacher_tap or tap, require_teacher(batch)
        theirs = find_tap(target, name, f"{at}.teacher_tap")
        return ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)

    def init(key, batch):
        image = batch.inputs["image"]
        one, two, three, four = jax.random.split(key, 4)
        variables = student.init(one, image)
        ours, theirs = features(apply_frozen(student, variables, image), batch)
        memory = losses.crd_memory_init(four, examples, width)
        # An image has no label here, and a random embedding, before its first batch.
        labels = jnp.full(examples, -1, jnp.int32)
        return {
            "student": variables,
            "student head": head.init(two, ours),
            "teacher head": head.init(three, theirs),
            "memory": {**memory._asdict(), "labels": labels},
        }

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        anchors = {}
        for name, x in zip(
            ("student", "teacher"), features(output, batch), strict=True
        ):
            own = f"{name} head"
            embedding, state = apply_network(own, head, params, state, x, key)
            anchors[name] = embedding.logits

        rows = {**anchors, "index": batch.index, "labels": batch.labels}
        rows = {k: collectives.gather(x, axis_name) for k, x in rows.items()}
        index = rows["index"]
        require(len(index) <= examples, "batch", f"<= {examples} examples", len(index))
        labels = state["memory"]["labels"].at[index].set(rows["labels"])
        others = draw_others(key, labels, rows["labels"], count)
        others = collectives.my_rows(others, axis_name)

        fields = losses.CRDMemory._fields
        memory = losses.CRDMemory(**{k: state["memory"][k] for k in fields})
        entries = losses.crd_memory_lookup(memory, batch.index, others)
        pair = anchors["student"], anchors["teacher"]
        options: dict[str, Any] = {"temperature": sharpness}
        memory = losses.crd_memory_calibrate(memory, *pair, *entries, **options)
        constants = {"student_constant": memory.student_constant}
        constants |= {"teacher_constant": memory.teacher_constant}
        constants = collectives.mean(constants, axis_name)
        banks = {"student_memory": entries[0], "teacher_memory": entries[1]}
        options |= {**banks, **constants, "examples": examples}
        contrast = losses.crd(*pair, **options).mean()
        memory = memory._replace(**constants)
        pair = rows["student"], rows["teacher"]
        memory = losses.crd_memory_update(memory, *pair, index, momentum=momentum)
        weights = label_weight, soft_weight, temperature
        task = task_loss(output.logits, batch, *weights)
        state = {**state, "memory": {**memory._asdict(), "labels": labels}}
        total = task + weight * contrast
        return {"student": total}, (state, {"task": task, "contrast": contrast})

    return Strategy(init, loss)


def draw_others(key: Array, known: Array, labels: Array, count: int) -> Array:
    """Rows of examples with other labels, `[batch, count]`, uniform with replacement.

    Args:
      known: labels of all examples, -1 where unknown, which is another label.
      labels: `[batch]`, those of the anchors. With no other label at all, the result
        is a row of the same one.
    """
    order, ordered = jnp.argsort(known), jnp.sort(known)
    first, end = (jnp.searchsorted(ordered, labels, side=x) for x in ("left", "right"))
    # Of all rows in order of their labels, those before and after the anchor's.
    size = (end - first)[:, None]
    rest = jnp.maximum(len(known) - size, 1)
    place = jax.random.randint(key, (len(labels), count), 0, rest)
    return order[jnp.where(place < first[:, None], place, place + size) % len(known)]
