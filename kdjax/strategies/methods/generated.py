"""Distillation on generated images (TSC-GAN), Liu et al. 2018, arXiv 1812.02271."""

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core import collectives
from kdjax.core.types import Array, Model, Strategy
from kdjax.models.generators import class_codes
from kdjax.strategies import critics
from kdjax.strategies.networks import apply_network
from kdjax.strategies.sampling import draw_uniform
from kdjax.strategies.supervision import label_loss, require_teacher, trace_output


def generated(
    student: Model,
    teacher: Model | None,
    generator: Model,
    *,
    classes: int,
    share: float = 0.5,
    weight: float = 0.9,
    label_weight: float = 0.1,
    temperature: float = 4.0,
    axis_name: str | None = None,
) -> Strategy:
    """Distillation on a mixture of real images and those of a frozen generator.

    L = label_weight * CE(y, p) + weight * T^2 KL(p_teacher || p)

    Each image is generated with probability `share`, its label drawn uniformly. At 0
    this is Hinton's distillation, at 1 generated images replace all real ones. The
    metric "coverage" is the number of classes that the teacher predicts for generated
    images, the exponential of the entropy, over the number of classes. Low values mean
    that the generator lacks classes.

    Args:
      student: learns from the teacher's predictions, and from labels.
      teacher: live, as it predicts for generated images.
      generator: frozen, such as that of a stage of `acgan`. Its images are resized
        for a teacher of another resolution.

    Raises:
      ConfigError: no live teacher, a generator that learns, or a bad option.
    """
    at = "strategy.options.share"
    require(0 <= share <= 1, at, "a number from 0 to 1", share)
    require(teacher is not None, "teacher", "a live teacher", "none")
    assert teacher is not None

    def init(key, batch):
        image = batch.inputs["image"]
        frozen = "generator" in batch.frozen
        expected = "True, as it does not learn"
        require(frozen, "networks.generator.frozen", expected, frozen)
        variables = student.init(key, image)
        output = trace_output(student, variables, image)
        require_teacher(batch, output.logits.shape[-1])
        codes = class_codes(key, batch.labels, classes)
        fixed = batch.frozen["generator"]
        critics.require_generator(generator, fixed, codes, image.shape[1:])
        return {"student": variables}

    def loss(params, state, batch, schedules, key):
        one, two, three = jax.random.split(key, 3)
        image = batch.inputs["image"]
        labels, codes = critics.draw_codes(one, len(image), classes, axis_name)
        made, _ = generator.apply(batch.frozen["generator"], codes, train=False)
        fakes = made.taps["image"]
        chosen = draw_uniform(two, len(image), axis_name) < share

        def mix(real: Array) -> Array:
            fake = jax.image.resize(fakes, real.shape, "linear")
            return jnp.where(chosen[:, None, None, None], fake, real)

        def apply_teacher(images):
            output, _ = teacher.apply(batch.frozen["teacher"], images, train=False)
            return jax.lax.stop_gradient(output.logits)

        theirs = apply_teacher(jax.tree.map(mix, batch.inputs["teacher_image"]))
        output, state = apply_network(
            "student", student, params, state, mix(image), three
        )
        soft = losses.softmax_kl(output.logits, theirs, temperature=temperature).mean()
        metrics = {"soft": soft, "generated": jnp.mean(chosen)}
        metrics["coverage"] = _coverage(theirs, chosen, axis_name)
        total = weight * soft
        if label_weight:
            partner = batch.partner_labels
            if partner is not None:
                partner = jnp.where(chosen, labels, partner)
            truth = jnp.where(chosen, labels, batch.labels)
            mixed = batch._replace(labels=truth, partner_labels=partner)
            metrics["hard"] = label_loss(output.logits, mixed)
            total += label_weight * metrics["hard"]
        return {"student": total}, (state, metrics)

    return Strategy(init, loss, labels=label_weight > 0)


def _coverage(logits: Array, chosen: Array, axis_name: str | None) -> Array:
    """Share of the classes in the mean prediction of the chosen examples.

    `exp(H(mean p)) / classes`: 1 for all classes alike; 0 if no example is chosen.
    """
    count = collectives.total(jnp.sum(chosen), axis_name)
    weights = chosen[:, None] / jnp.maximum(count, 1)
    mean = jnp.sum(weights * jax.nn.softmax(logits), axis=0)
    mean = collectives.total(mean, axis_name)
    entropy = jnp.sum(jax.scipy.special.entr(mean))
    share = jnp.exp(entropy) / logits.shape[-1]
    return jnp.where(count > 0, share, 0)
