"""What teacher and student see: drawn once as values, applied as often as needed.

Consistency lives here. Under `consistent` and `function_matching` one draw serves both
sides, at whatever resolutions; under `independent` there are two draws; under `fixed`
the teacher's does not depend on time. Beyer et al., arXiv 2106.05237, section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.augment import geometry, mix
from kdjax.augment.geometry import Crop
from kdjax.config import Views
from kdjax.core import keys
from kdjax.core.types import Array, View


class ViewId(NamedTuple):
    """The name of the views of a batch; from it they can be drawn again.

    example, epoch: `[batch]` int32, which image and which pass over the data.
    step: scalar int32, names the mixup coefficient.
    partner, partner_epoch: `[batch]` int32, the image mixed in; equal to the first two
        where nothing is mixed.
    """

    example: Array
    epoch: Array
    step: Array
    partner: Array
    partner_epoch: Array


class Draw(NamedTuple):
    """Everything random about the views of a batch."""

    student: Crop
    teacher: Crop
    mix_weight: Array | None


def name_views(
    examples: Array,
    epochs: Array,
    step: Array,
    views: Views,
    axis_name: str | None = None,
) -> ViewId:
    """The ids of the views of one batch, in its order."""
    if views.mode != "function_matching":
        return ViewId(examples, epochs, step, examples, epochs)
    partner = mix.partners(examples, axis_name)
    return ViewId(examples, epochs, step, partner, mix.partners(epochs, axis_name))


def draw_views(
    seed: int | Array, view_id: ViewId, views: Views, image_size: tuple[int, int]
) -> Draw:
    """Draw what `view_id` names. Equal ids give equal draws, always and everywhere.

    image_size: (height, width) of the stored images in pixels.

    Raises ConfigError naming the field of `views` that cannot be drawn.
    """
    views.check()

    def crop(purpose: str) -> Crop:
        one_each = keys.example_keys(seed, purpose, view_id.epoch, view_id.example)
        return geometry.draw_crops(
            one_each,
            area=views.area,
            aspect=views.aspect,
            flip=views.flip,
            image_size=image_size,
        )

    student = crop("crop")
    if views.mode == "fixed":
        return Draw(student, geometry.whole_image(len(view_id.example)), None)
    if views.mode == "independent":
        return Draw(student, crop("teacher crop"), None)
    if views.mode == "consistent":
        return Draw(student, student, None)
    return Draw(student, student, mix.draw_mix(seed, view_id.step))


def apply_views(
    draw: Draw,
    images: Array,
    labels: Array,
    *,
    student_size: int,
    teacher_size: int,
    axis_name: str | None = None,
) -> View:
    """Make both sides' images from one draw.

    images: `[batch, height, width, channels]`, pixels 0 to 255, in the order of the
        draw; uint8, as anything else is most likely scaled already.
    labels: `[batch]` int32.
    student_size, teacher_size: side of the square that each sees, in pixels.
    axis_name: the pmap or shard_map axis over which the batch is split, if any.
    """

    if images.dtype != jnp.uint8:
        raise ValueError(f"images: expected uint8 pixels, got {images.dtype}")
    if labels.shape != images.shape[:1]:
        want, got = images.shape[:1], labels.shape
        raise ValueError(f"labels: expected shape {want}, got {got}")

    def see(crop: Crop, size: int) -> Array:
        seen = geometry.normalise(geometry.apply_crops(images, crop, (size, size)))
        if draw.mix_weight is None:
            return seen
        return mix.apply_mix(seen, draw.mix_weight, axis_name)

    student = see(draw.student, student_size)
    shared = draw.teacher is draw.student and teacher_size == student_size
    teacher = student if shared else see(draw.teacher, teacher_size)
    if draw.mix_weight is None:
        return View(student, teacher, labels)
    return View(
        student, teacher, labels, mix.partners(labels, axis_name), draw.mix_weight
    )


def replay(
    seed: int | Array,
    view_id: ViewId,
    images: Array,
    partner_images: Array,
    views: Views,
    *,
    student_size: int,
    teacher_size: int,
) -> View:
    """Make views again from their ids alone, one by one, whatever batch they came from.

    images, partner_images: `[n, height, width, channels]`, the images that
        `view_id.example` and `view_id.partner` name. Labels are not replayed (zeros).
    """

    def one(example, epoch, partner, partner_epoch, image, partner_image):
        # In a batch of two, the partner of the second row is the first.
        ids = ViewId(
            jnp.stack([partner, example]),
            jnp.stack([partner_epoch, epoch]),
            view_id.step,
            jnp.stack([example, partner]),
            jnp.stack([epoch, partner_epoch]),
        )
        pair = jnp.stack([partner_image, image])
        draw = draw_views(seed, ids, views, (pair.shape[1], pair.shape[2]))
        seen = apply_views(
            draw,
            pair,
            jnp.zeros((2,), jnp.int32),
            student_size=student_size,
            teacher_size=teacher_size,
        )
        return seen.student[1], seen.teacher[1]

    student, teacher = jax.vmap(one)(
        view_id.example,
        view_id.epoch,
        view_id.partner,
        view_id.partner_epoch,
        images,
        partner_images,
    )
    return View(student, teacher, jnp.zeros(len(student), jnp.int32))


def whole_view(images: Array, size: int) -> Array:
    """The view for evaluation: the whole image at `size`, float32 in [-1, 1]."""
    crop = geometry.whole_image(len(images))
    return geometry.normalise(geometry.apply_crops(images, crop, (size, size)))
