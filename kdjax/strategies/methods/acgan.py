"""Auxiliary classifier GAN (AC-GAN), Odena et al. 2017, arXiv 1610.09585."""

import jax

from kdjax import losses
from kdjax.config import require
from kdjax.core.types import Model, Strategy
from kdjax.models.generators import class_codes
from kdjax.strategies import critics
from kdjax.strategies.networks import apply_network, init_networks
from kdjax.strategies.supervision import label_loss, trace_output


def acgan(
    student: Model,
    generator: Model,
    *,
    classes: int,
    class_weight: float = 1.0,
    variant: str = "non_saturating",
    generator_steps: int = 1,
    axis_name: str | None = None,
) -> Strategy:
    """AC-GAN: a generator of images of a class, and a critic that names the class.

    L_critic = GAN loss + class_weight * (CE of real and of generated images)
    L_generator = GAN loss + class_weight * CE of generated images

    The first of two stages of `generated`. It needs no teacher.

    Args:
      student: the critic, with class logits and the tap "score", such as
        `kdjax.models.generators:image_critic`. Its accuracy is that of the run.
      generator: such as `kdjax.models.generators:class_generator`.
      class_weight: of the classes; 0 makes it a plain GAN.
      variant: of the GAN loss, as in `losses.adversarial_critic`.
      generator_steps: steps of the generator for one of the critic.

    Raises:
      ConfigError: networks that are no critic and no generator, or a bad option.
    """
    critics.require_variant(variant)
    at = "strategy.options.generator_steps"
    require(generator_steps >= 1, at, "at least 1 step", generator_steps)
    networks = {"student": student, "generator": generator}

    def init(key, batch):
        image = batch.inputs["image"]
        made = init_networks(networks, key, image)
        taps = trace_output(student, made["student"], image).taps
        expected = "a critic with the tap score, such as image_critic"
        require("score" in taps, "model.name", expected, sorted(taps))
        codes = class_codes(key, batch.labels, classes)
        generated = made["generator"]
        critics.require_generator(generator, generated, codes, image.shape[1:])
        return made

    def loss(params, state, batch, schedules, key):
        one, two = jax.random.split(key)
        image = batch.inputs["image"]
        labels, codes = critics.draw_codes(one, len(image), classes, axis_name)
        made, state = apply_network("generator", generator, params, state, codes, two)
        images = (image, made.taps["image"])
        (real, fake), state = _judge(student, params, state, images, two)
        scores = fake.taps["score"], real.taps["score"]
        source = losses.adversarial_critic(*scores, variant=variant).mean()
        against = losses.adversarial_student(scores[0], variant=variant).mean()
        real_class = label_loss(real.logits, batch)
        fake_class = losses.hard_cross_entropy(fake.logits, labels).mean()
        values = {
            "student": source + class_weight * (real_class + fake_class),
            "generator": against + class_weight * fake_class,
        }
        metrics = {"critic": source, "against critic": against}
        metrics |= {"class of real": real_class, "class of generated": fake_class}
        return values, (state, metrics)

    turns = (("student", 1), ("generator", generator_steps))
    return Strategy(init, loss, turns=turns)


def _judge(critic: Model, params, state, sources, key):
    """The critic's output for each source, one after another: its state moves on."""
    outputs = []
    for images in sources:
        output, state = apply_network("student", critic, params, state, images, key)
        outputs.append(output)
    return outputs, state
