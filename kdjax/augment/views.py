"""Views of student and teacher: drawn once as values, applied as often as needed.

Consistency lives here. Under `consistent` and `function_matching` one draw serves both
sides, at whatever resolutions; under `independent` there are two draws; under `fixed`
the teacher's does not depend on time. Beyer et al., arXiv 2106.05237, section 3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.augment import color, geometry, mix, randaugment
from kdjax.augment.color import Jitter
from kdjax.augment.geometry import Crop
from kdjax.augment.randaugment import Operations
from kdjax.config import Views, check_types
from kdjax.core import keys, pixels
from kdjax.core.types import Array, View

# Changes when the same id begins to give another view.
VERSION = "8-bit-2"


class ViewId(NamedTuple):
    """The name of the views of a batch; from it they can be drawn again.

    example, epoch: `[batch]` int32, the id of the image and the epoch.
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
    """Everything random about the views of a batch; None where nothing is drawn.

    mix_box: cutmix puts this box of the partner into each image; `mix_weight` then is
        the share of the image that is left.
    jitter, operations: color jitter and RandAugment of each side.
    """

    student: Crop
    teacher: Crop
    mix_weight: Array | None
    mix_box: Array | None = None
    student_jitter: Jitter | None = None
    teacher_jitter: Jitter | None = None
    student_operations: Operations | None = None
    teacher_operations: Operations | None = None


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
    seed: int | Array,
    view_id: ViewId,
    views: Views,
    image_size: tuple[int, int] | Array,
) -> Draw:
    """Draw the views that `view_id` names. Equal ids always give equal draws.

    image_size: (height, width) in pixels of the images before they were resized to be
        stored: one for all, or `[batch, 2]`.

    Raises ConfigError naming the field of `views` that cannot be drawn.
    """
    check_types(views, "views")
    views.check()
    student = _draw_side(seed, view_id, views, image_size, "")
    if views.mode == "fixed":
        batch, is_whole = len(view_id.example), views.fixed_view == "whole"
        center = geometry.central_image(batch, views.crop_fraction)
        teacher = _Side(geometry.whole_image(batch) if is_whole else center, None, None)
    elif views.mode == "independent":
        teacher = _draw_side(seed, view_id, views, image_size, "teacher ")
    else:
        teacher = student
    weight = box = None
    if views.mode == "function_matching":
        weight = mix.draw_mix(seed, view_id.step)
        if views.mix == "cutmix":
            box = mix.draw_box(seed, view_id.step, weight)
            weight = mix.share_kept(box)
    return Draw(
        student.crop,
        teacher.crop,
        weight,
        box,
        student.jitter,
        teacher.jitter,
        student.operations,
        teacher.operations,
    )


class _Side(NamedTuple):
    """The draw of one side, before anything is mixed."""

    crop: Crop
    jitter: Jitter | None
    operations: Operations | None


def _draw_side(
    seed: int | Array,
    view_id: ViewId,
    views: Views,
    image_size: tuple[int, int] | Array,
    side: str,
) -> _Side:
    def keys_for(purpose: str) -> Array:
        name = side + purpose
        return keys.example_keys(seed, name, view_id.epoch, view_id.example)

    if views.crop == "random":
        crop_keys = keys_for("crop")
        crop = geometry.draw_mild_crops(
            crop_keys, share=views.crop_fraction, flip=views.flip
        )
    else:
        crop = geometry.draw_crops(
            keys_for("crop"),
            area=views.area,
            aspect=views.aspect,
            flip=views.flip,
            image_size=image_size,
        )
    jitter = operations = None
    if any(views.jitter):
        jitter = color.draw_jitter(keys_for("jitter"), views.jitter)
    count, magnitude = views.randaugment
    if count:
        one_each = keys_for("randaugment")
        operations = randaugment.draw_operations(one_each, count, magnitude)
    return _Side(crop, jitter, operations)


def apply_views(
    draw: Draw,
    images: Array,
    labels: Array,
    *,
    student_size: int,
    teacher_size: Any,
    axis_name: str | None = None,
    method: str = "linear",
    antialias: bool = False,
) -> View:
    """Make the images of student and teacher from one draw.

    What is cut out is an image again: pixels are rounded to whole numbers, on the
    device as on the host.

    images: `[batch, height, width, channels]`, pixels 0 to 255, in the order of the
        draw; uint8, as anything else is most likely scaled already.
    labels: `[batch]` int32.
    student_size, teacher_size: side of the square images of each, in pixels; a tuple
        of sides for several teachers.
    axis_name: the pmap or shard_map axis over which the batch is split, if any.
    method, antialias: how crops are resized (`Views`).
    """
    _check(images, labels)

    def cut(crop: Crop, size: int) -> Array:
        resized = geometry.apply_crops(images, crop, (size, size), method, antialias)
        return pixels.round_pixels(resized, jnp)

    student = cut(draw.student, student_size)

    def for_teacher(size: int) -> Array:
        shared = draw.teacher is draw.student and size == student_size
        return student if shared else cut(draw.teacher, size)

    teacher = jax.tree.map(for_teacher, teacher_size)
    return _finish(draw, student, teacher, labels, axis_name)


def finish_views(
    draw: Draw,
    student: Array,
    teacher: Array | None,
    labels: Array,
    *,
    axis_name: str | None = None,
) -> View:
    """The rest of `apply_views` for views that the host has cut out and mirrored.

    student, teacher: `[batch, size, size, channels]` uint8 from `data.streamed`;
        teacher None where both are the same.
    """
    _check(student, labels)
    pixels = student.astype(jnp.float32)
    shared = teacher is None
    other = pixels if shared else teacher.astype(jnp.float32)
    return _finish(draw, pixels, other, labels, axis_name)


def _check(images: Array, labels: Array) -> None:
    if images.dtype != jnp.uint8:
        raise ValueError(f"images: expected uint8 pixels, got {images.dtype}")
    if labels.shape != images.shape[:1]:
        expected, got = images.shape[:1], labels.shape
        raise ValueError(f"labels: expected shape {expected}, got {got}")


def _finish(
    draw: Draw, student: Array, teacher: Any, labels: Array, axis_name: str | None
) -> View:
    """Colors, range and mix of images that have been cut out."""

    def finish_side(
        pixels: Array, jitter: Jitter | None, operations: Operations | None
    ) -> Array:
        if jitter is not None:
            pixels = color.apply_jitter(pixels, jitter)
        if operations is not None:
            pixels = randaugment.apply_operations(pixels, operations)
        normalized = geometry.normalize(pixels)
        if draw.mix_box is not None:
            return mix.apply_box(normalized, draw.mix_box, axis_name)
        if draw.mix_weight is not None:
            return mix.apply_mix(normalized, draw.mix_weight, axis_name)
        return normalized

    is_shared = draw.teacher_jitter is draw.student_jitter
    is_shared = is_shared and draw.teacher_operations is draw.student_operations
    student_view = finish_side(student, draw.student_jitter, draw.student_operations)

    def finish_teacher(pixels: Array) -> Array:
        if pixels is student and is_shared:
            return student_view
        return finish_side(pixels, draw.teacher_jitter, draw.teacher_operations)

    teacher_view = jax.tree.map(finish_teacher, teacher)
    if draw.mix_weight is None:
        return View(student_view, teacher_view, labels)
    partner_labels = mix.partners(labels, axis_name)
    return View(student_view, teacher_view, labels, partner_labels, draw.mix_weight)


def host_draw(views: Views) -> Callable[..., tuple[Crop, Crop]]:
    """Draw crops on the host, for images that are cut out before they travel.

    Returns a function `(seed, epochs, examples, sizes) -> (student's, teacher's crop)`
    of NumPy arrays; `sizes` is `[batch, 2]`. It is `draw_views` itself, compiled for
    the CPU whatever other devices there are; both results are one object where both
    sides have one crop.
    """

    @jax.jit
    def draw(seed: Array, epochs: Array, examples: Array, sizes: Array):
        step = jnp.int32(0)
        view_id = ViewId(examples, epochs, step, examples, epochs)
        crops = draw_views(seed, view_id, views, sizes)
        return crops.student, crops.teacher

    def on_host(seed: int, epochs, examples, sizes) -> tuple[Crop, Crop]:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            crops = jax.device_get(draw(np.int32(seed), epochs, examples, sizes))
        student, teacher = crops
        shared = views.mode in ("consistent", "function_matching")
        return student, student if shared else teacher

    return on_host


def replay(
    seed: int | Array,
    view_id: ViewId,
    images: Array,
    partner_images: Array,
    views: Views,
    *,
    student_size: int,
    teacher_size: int,
    sizes: Array | None = None,
    partner_sizes: Array | None = None,
) -> View:
    """Replay views from their ids alone, one by one, whatever batch they came from.

    images, partner_images: `[n, height, width, channels]`, the images that
        `view_id.example` and `view_id.partner` name. Labels are not replayed (zeros).
    sizes, partner_sizes: `[n, 2]` (height, width) of these images before they were
        resized to be stored; None where they were not.
    """
    if (sizes is None) != (partner_sizes is None):
        raise ValueError("partner_sizes: expected sizes for both images or for none")

    def one(example, epoch, partner, partner_epoch, image, partner_image, *size_pair):
        # In a batch of two, the partner of the second row is the first.
        ids = ViewId(
            jnp.stack([partner, example]),
            jnp.stack([partner_epoch, epoch]),
            view_id.step,
            jnp.stack([example, partner]),
            jnp.stack([epoch, partner_epoch]),
        )
        pair = jnp.stack([partner_image, image])
        size = (pair.shape[1], pair.shape[2])
        if size_pair:
            size = jnp.stack(size_pair[::-1])
        draw = draw_views(seed, ids, views, size)
        pair_view = apply_views(
            draw,
            pair,
            jnp.zeros((2,), jnp.int32),
            student_size=student_size,
            teacher_size=teacher_size,
            method=views.method,
            antialias=views.antialias,
        )
        return pair_view.student[1], pair_view.teacher[1]

    student, teacher = jax.vmap(one)(
        view_id.example,
        view_id.epoch,
        view_id.partner,
        view_id.partner_epoch,
        images,
        partner_images,
        *([] if sizes is None else [sizes, partner_sizes]),
    )
    return View(student, teacher, jnp.zeros(len(student), jnp.int32))


def evaluation_view(
    images: Array, size: int, crop: float = 0.0, sizes: Array | None = None
) -> Array:
    """The view for evaluation, float32 in [-1, 1].

    images: uint8 `[batch, height, width, channels]`.
    crop: `kdjax.config.Views.evaluation_crop`; 0 takes the whole image.
    sizes: `[batch, 2]` (height, width) before the images were resized to be stored.
    """
    if not crop:
        return whole_view(images, size)
    return central_view(images, size, central=crop, sizes=sizes)


def whole_view(images: Array, size: int) -> Array:
    """The view for evaluation: the whole image at `size`, float32 in [-1, 1]."""
    # Its batch may be a symbol, in an exported program.
    crop = geometry.whole_image(images.shape[0])
    return geometry.normalize(geometry.apply_crops(images, crop, (size, size)))


def central_view(
    images: Array, size: int, *, central: float, sizes: Array | None = None
) -> Array:
    """The paper's view for evaluation, float32 in [-1, 1].

    The smaller side is resized to `central * size` pixels and the central square of
    `size` is cut out, in one resampling that averages where it makes smaller.

    images: `[batch, height, width, channels]`.
    central: at least 1; 1.25 is the paper's 160 to 128.
    sizes: `[batch, 2]` (height, width) before the images were resized to be stored.
    """
    if sizes is None:
        size_of_all = jnp.array([images.shape[1:3]], jnp.int32)
        sizes = jnp.broadcast_to(size_of_all, (images.shape[0], 2))
    crop = geometry.central_crops(sizes, resize=round(central * size), crop=size)
    resized = geometry.apply_crops(images, crop, (size, size), antialias=True)
    return geometry.normalize(resized)
