"""The modes: what is shared between teacher and student, and what changes when."""

import dataclasses
import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kdjax.augment import geometry, views
from kdjax.augment.geometry import Crop
from kdjax.config import Mode, Views

N = 16
# Programs that run once take longer to optimize than to run.
ONCE = {"xla_backend_optimization_level": 0}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)


def cut_out(images, crop, size):
    """Crops as images again: pixels are whole numbers."""
    cut = geometry.apply_crops(images, crop, (size, size))
    return geometry.normalize(np.floor(np.asarray(cut) + 0.501))


def named(mode, examples=None, epoch=0, step=0):
    examples = jnp.arange(N) if examples is None else jnp.asarray(examples)
    epochs = jnp.full(len(examples), epoch)
    return views.name_views(examples, epochs, jnp.int32(step), Views(mode=mode))


def see(images, mode, *, epoch=0, step=0, student=8, teacher=8, seed=0, examples=None):
    view_id = named(mode, examples, epoch, step)
    draw = views.draw_views(seed, view_id, Views(mode=mode), (8, 8))
    labels = view_id.example % 10
    chosen = images[np.asarray(view_id.example)]
    seen = views.apply_views(
        draw, chosen, labels, student_size=student, teacher_size=teacher
    )
    return draw, seen


@pytest.mark.parametrize("mode", ["consistent", "function_matching"])
def test_consistent_views_are_bit_identical_at_equal_resolution(images, mode):
    _, seen = see(images, mode)
    np.testing.assert_array_equal(seen.student, seen.teacher)


@pytest.mark.parametrize("mode", ["consistent", "function_matching"])
def test_one_box_and_one_flip_at_different_resolutions(images, mode):
    draw, seen = see(images, mode, student=6, teacher=12)
    np.testing.assert_array_equal(draw.student.box, draw.teacher.box)
    np.testing.assert_array_equal(draw.student.flip, draw.teacher.flip)
    for size, got in ((6, seen.student), (12, seen.teacher)):
        want = np.asarray(cut_out(images[:N], draw.student, size), np.float64)
        if draw.mix_weight is not None:
            w = float(draw.mix_weight)
            want = w * want + (1 - w) * np.roll(want, 1, axis=0)
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_fixed_teacher_never_changes_and_sees_the_whole_image(images):
    whole = geometry.normalize(images[:N])
    _, first = see(images, "fixed")
    np.testing.assert_allclose(first.teacher, whole, atol=1e-6)
    students = [np.asarray(first.student)]
    for epoch, step, seed in ((5, 90, 0), (5, 91, 3)):
        _, seen = see(images, "fixed", epoch=epoch, step=step, seed=seed)
        np.testing.assert_array_equal(seen.teacher, first.teacher)
        students.append(np.asarray(seen.student))
    assert (students[0] != students[1]).any() and (students[1] != students[2]).any()


def test_fixed_without_random_crops_never_changes_on_either_side(images):
    plain = Views(mode="fixed", area=(1.0, 1.0), aspect=(1.0, 1.0), flip=False)
    whole = geometry.normalize(images[:N])
    for epoch in (0, 7):
        draw = views.draw_views(epoch, named("fixed", epoch=epoch), plain, (8, 8))
        labels = jnp.zeros(N, jnp.int32)
        seen = views.apply_views(
            draw, images[:N], labels, student_size=8, teacher_size=8
        )
        np.testing.assert_allclose(seen.student, whole, atol=1e-6)
        np.testing.assert_allclose(seen.teacher, whole, atol=1e-6)


def test_independent_views_differ_for_every_example(images):
    draw, seen = see(images, "independent")
    assert (np.asarray(draw.student.box) != np.asarray(draw.teacher.box)).any(1).all()
    assert (np.asarray(seen.student) != np.asarray(seen.teacher)).any((1, 2, 3)).all()


@pytest.mark.parametrize("mode", ["independent", "consistent", "function_matching"])
def test_views_change_with_epoch_and_seed(images, mode):
    first = see(images, mode)[1].student
    assert (see(images, mode, epoch=1)[1].student != first).any()
    assert (see(images, mode, seed=1)[1].student != first).any()


def test_only_function_matching_mixes(images):
    for mode in ("fixed", "independent", "consistent"):
        draw, seen = see(images, mode)
        assert draw.mix_weight is None
        assert seen.mix_weight is None and seen.partner_labels is None


def test_mixup_takes_the_previous_row_with_one_weight_for_all(images):
    draw, seen = see(images, "function_matching", step=7)
    cut = cut_out(images[:N], draw.student, 8)
    w = np.float64(draw.mix_weight)
    want = w * np.asarray(cut, np.float64) + (1 - w) * np.roll(cut, 1, axis=0)
    np.testing.assert_allclose(seen.student, want, atol=1e-6)
    np.testing.assert_array_equal(seen.partner_labels, np.roll(seen.labels, 1))
    np.testing.assert_allclose(  # mixing keeps the mean of the batch
        np.mean(seen.student, axis=0), np.mean(cut, axis=0), atol=1e-6
    )


def test_mix_weight_is_uniform_on_zero_one_and_named_by_its_step():
    weights = jax.vmap(lambda s: views.mix.draw_mix(0, s))(jnp.arange(4000))
    weights = np.sort(np.asarray(weights, np.float64))
    # Kolmogorov-Smirnov distance to the uniform law; 1.95 / sqrt(n) is p = 0.001.
    distance = np.abs(weights - (np.arange(4000) + 0.5) / 4000).max()
    assert distance < 1.95 / np.sqrt(4000)
    assert float(views.mix.draw_mix(0, 12)) == float(views.mix.draw_mix(0, 12))


@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_view_can_be_drawn_again_from_its_id(images, mode):
    """One by one and in another order, the same views come out."""
    examples = np.random.default_rng(1).permutation(40)[:N]
    view_id = named(mode, examples, epoch=3, step=17)
    _, seen = see(
        images, mode, epoch=3, step=17, examples=examples, student=6, teacher=9
    )
    back = np.random.default_rng(2).permutation(N)
    picked = views.ViewId(
        view_id.example[back],
        view_id.epoch[back],
        view_id.step,
        view_id.partner[back],
        view_id.partner_epoch[back],
    )
    again = views.replay(
        0,
        picked,
        images[np.asarray(picked.example)],
        images[np.asarray(picked.partner)],
        Views(mode=mode),
        student_size=6,
        teacher_size=9,
    )
    np.testing.assert_allclose(again.student, seen.student[back], atol=1e-6)
    np.testing.assert_allclose(again.teacher, seen.teacher[back], atol=1e-6)


def test_views_do_not_depend_on_the_devices(images):
    """Over 8 devices, under pmap and under jit, the global batch is the same."""
    _, want = see(images, "function_matching", step=3)
    config = Views(mode="function_matching")

    def make(examples, chosen, axis_name):
        epochs = jnp.zeros_like(examples)
        view_id = views.name_views(examples, epochs, jnp.int32(3), config, axis_name)
        draw = views.draw_views(0, view_id, config, (8, 8))
        labels = examples % 10
        seen = views.apply_views(
            draw, chosen, labels, student_size=8, teacher_size=8, axis_name=axis_name
        )
        return seen.student, seen.partner_labels

    mapped = jax.pmap(lambda e, x: make(e, x, "batch"), axis_name="batch")
    student, partners = mapped(
        jnp.arange(N).reshape(8, 2), images[:N].reshape(8, 2, 8, 8, 1)
    )
    np.testing.assert_allclose(student.reshape(N, 8, 8, 1), want.student, atol=5e-6)
    np.testing.assert_array_equal(partners.reshape(N), want.partner_labels)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, P("data"))
    placed = jax.device_put((jnp.arange(N), images[:N]), rows)
    student, partners = jax.jit(lambda e, x: make(e, x, None))(*placed)
    np.testing.assert_allclose(student, want.student, atol=5e-6)
    np.testing.assert_array_equal(partners, want.partner_labels)


RICH = Views(jitter=(0.4, 0.4, 0.4, 0.1), mix="cutmix")


def colorful(n):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


@pytest.mark.full
@pytest.mark.parametrize("mode", get_args(Mode))
def test_colors_are_shared_and_drawn_again_as_crops_are(mode):
    """With every further draw on: consistency, and each view from its id alone."""
    operations = (1, 5) if mode in ("independent", "function_matching") else (0, 0)
    config = dataclasses.replace(RICH, mode=mode, randaugment=operations)
    images, rows = colorful(6), np.array([4, 0, 5, 2, 1, 3])
    sizes = np.array([(8, 8), (30, 20), (20, 30)] * 2, np.int32)
    ids, epochs = jnp.asarray(rows), jnp.full(6, 3)
    view_id = views.name_views(ids, epochs, jnp.int32(5), config)

    @functools.partial(jax.jit, compiler_options=ONCE)
    def both(chosen, partners, chosen_sizes, partner_sizes):
        draw = views.draw_views(1, view_id, config, chosen_sizes)
        seen = views.apply_views(draw, chosen, ids, student_size=6, teacher_size=6)
        again = views.replay(
            1,
            view_id,
            chosen,
            partners,
            config,
            student_size=6,
            teacher_size=6,
            sizes=chosen_sizes,
            partner_sizes=partner_sizes,
        )
        return draw, seen, again

    other = np.asarray(view_id.partner)
    draw, seen, again = both(images[rows], images[other], sizes[rows], sizes[other])
    np.testing.assert_allclose(again.student, seen.student, atol=2e-5)
    np.testing.assert_allclose(again.teacher, seen.teacher, atol=2e-5)
    shared = mode in ("consistent", "function_matching")
    assert (np.asarray(seen.student) == np.asarray(seen.teacher)).all() == shared
    factors = [np.asarray(draw.student_jitter.hue)]
    if mode == "fixed":
        assert draw.teacher_jitter is None and draw.teacher_operations is None
        whole = cut_out(images[rows], geometry.whole_image(6), 6)
        np.testing.assert_allclose(seen.teacher, whole, atol=1e-6)
    else:
        factors.append(np.asarray(draw.teacher_jitter.hue))
        assert (factors[0] == factors[1]).all() == shared
    assert len(np.unique(factors[0])) == 6


def test_cutmix_puts_one_box_of_the_previous_row_into_every_image(images):
    config = Views(mode="function_matching", mix="cutmix")
    view_id = named("function_matching", step=2)
    draw = views.draw_views(0, view_id, config, (8, 8))
    seen = views.apply_views(
        draw, images[:N], view_id.example % 10, student_size=16, teacher_size=8
    )
    top, left, height, width = np.asarray(draw.mix_box, np.float64)
    assert 0 <= top <= top + height <= 1 and 0 <= left <= left + width <= 1
    for size, got in ((16, seen.student), (8, seen.teacher)):
        cut = np.asarray(cut_out(images[:N], draw.student, size))
        center = (np.arange(size) + 0.5) / size
        rows = (center >= top) & (center < top + height)
        columns = (center >= left) & (center < left + width)
        covered = np.outer(rows, columns)[None, :, :, None]
        want = np.where(covered, np.roll(cut, 1, axis=0), cut)
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert 0 < covered.mean() < 1
    np.testing.assert_allclose(seen.mix_weight, 1 - height * width, atol=1e-6)
    np.testing.assert_array_equal(seen.partner_labels, np.roll(seen.labels, 1))


def test_a_box_has_the_share_of_its_weight_unless_it_is_cut_off():
    weights = jnp.linspace(0.05, 1.0, 400)
    box = jax.vmap(lambda s, w: views.mix.draw_box(0, s, w))(jnp.arange(400), weights)
    top, left, height, width = np.asarray(box, np.float64).T
    side = np.sqrt(1 - np.asarray(weights, np.float64))
    inside = (
        (top > 0) & (left > 0) & (top + height < 1 - 1e-6) & (left + width < 1 - 1e-6)
    )
    assert inside.sum() > 50
    np.testing.assert_allclose(height[inside], side[inside], atol=1e-5)
    np.testing.assert_allclose(width[inside], side[inside], atol=1e-5)
    assert (height <= side + 1e-5).all() and (box >= 0).all()
    centers = (top + height / 2)[inside]
    assert centers.min() < 0.2 and centers.max() > 0.8


def test_the_central_view_is_the_middle_of_a_stored_image():
    """A wide image squashed into a square: its own size says where its middle is."""
    images = colorful(2)
    sizes = jnp.array([(8, 16), (8, 8)])
    got = views.central_view(images, 8, central=1.0, sizes=sizes)
    crop = Crop(
        jnp.array([[0.0, 0.25, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]]), jnp.zeros(2, bool)
    )
    want = geometry.normalize(geometry.apply_crops(images, crop, (8, 8)))
    np.testing.assert_allclose(got, want, atol=1e-5)
    same = views.central_view(images, 8, central=1.0)
    np.testing.assert_allclose(same[1], want[1], atol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "views.jitter: expected brightness"),
        ({"randaugment": (2, 11)}, "views.randaugment: expected .operations 0 to"),
        ({"mix": "blend"}, "views.mix: expected one of .'mixup', 'cutmix'"),
        ({"method": "area"}, "views.method: expected one of .'linear', 'cubic'"),
        (
            {"evaluation_crop": 0.5},
            "views.evaluation_crop: expected 0 or a number >= 1",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        views.draw_views(0, named("fixed"), Views(**change), (8, 8))


def test_views_that_the_host_cut_out_are_finished_the_same_way(images):
    draw, seen = see(images, "function_matching", step=3)
    cut = geometry.apply_crops(images[:N], draw.student, (8, 8))
    pixels = np.floor(np.asarray(cut) + 0.501).astype(np.uint8)
    labels = jnp.arange(N) % 10
    got = views.finish_views(draw, pixels, None, labels)
    np.testing.assert_allclose(got.student, seen.student, atol=1e-6)
    np.testing.assert_array_equal(got.student, got.teacher)
    with pytest.raises(ValueError, match="images: expected uint8"):
        views.finish_views(draw, cut, None, labels)


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="views.mode.*'sideways'"):
        views.draw_views(0, named("fixed"), Views(mode="sideways"), (8, 8))  # type: ignore[arg-type]


def test_mild_crops_and_a_still_center(images):
    """The paper's fix/cc and same/rc."""
    labels = jnp.zeros(N, jnp.int32)

    def seen(mode, epoch):
        mild = Views(
            mode=mode, crop="random", crop_fraction=0.5, fixed_view="center", flip=False
        )
        draw = views.draw_views(0, named(mode, epoch=epoch), mild, (8, 8))
        return draw, views.apply_views(
            draw, images[:N], labels, student_size=4, teacher_size=4
        )

    draw, first = seen("fixed", 0)
    center = geometry.normalize(images[:N, 2:6, 2:6])
    np.testing.assert_allclose(first.teacher, center, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(draw.student.box)[:, 2:], 0.5)
    _, later = seen("fixed", 1)
    np.testing.assert_array_equal(later.teacher, first.teacher)
    assert (np.asarray(later.student) != np.asarray(first.student)).any()
    _, same = seen("consistent", 0)
    assert same.teacher is same.student


def test_no_two_draws_of_a_view_are_correlated():
    """Crop, flip, jitter and RandAugment of student and teacher, all different."""
    n = 2000
    config = dataclasses.replace(RICH, mode="independent", randaugment=(1, 5))
    config = dataclasses.replace(config, area=(0.1, 0.4), aspect=(0.5, 2.0))
    view_id = views.name_views(jnp.arange(n), jnp.zeros(n, int), jnp.int32(0), config)
    draw = jax.jit(lambda: views.draw_views(0, view_id, config, (8, 8)))()
    columns = []
    for crop, jitter, operations in (
        (draw.student, draw.student_jitter, draw.student_operations),
        (draw.teacher, draw.teacher_jitter, draw.teacher_operations),
    ):
        top, left, h, w = np.asarray(crop.box, np.float64).T
        columns += [top / (1 - h), left / (1 - w), w / h, h * w, crop.flip, *jitter]
        columns += [operations.which[:, 0], operations.level[:, 0] > 0]
    found = np.corrcoef(np.array([np.asarray(x, np.float64) for x in columns]))
    # 0.022 is one standard deviation of a correlation of 2000 independent pairs.
    np.testing.assert_allclose(found, np.eye(len(columns)), atol=0.1)


def test_the_box_of_cutmix_is_not_correlated_with_its_weight():
    steps = jnp.arange(2000)
    weight = jax.vmap(lambda step: views.mix.draw_mix(0, step))(steps)
    small = jnp.full(len(steps), 0.99)
    box = jax.vmap(lambda step, w: views.mix.draw_box(0, step, w))(steps, small)
    found = np.corrcoef([weight, box[:, 0], box[:, 1]])
    np.testing.assert_allclose(found, np.eye(3), atol=0.1)


def test_a_batch_that_spans_two_epochs_is_drawn_again_from_its_ids(images):
    """The last two rows of one epoch and the first two of the next."""
    config = Views()
    examples, epochs = jnp.array([7, 3, 3, 9]), jnp.array([0, 0, 1, 1])
    view_id = views.name_views(examples, epochs, jnp.int32(5), config)
    np.testing.assert_array_equal(view_id.partner, [9, 7, 3, 3])
    np.testing.assert_array_equal(view_id.partner_epoch, [1, 0, 0, 1])
    sizes = dict(student_size=8, teacher_size=8)

    @functools.partial(jax.jit, compiler_options=ONCE)
    def both(chosen, others):
        draw = views.draw_views(0, view_id, config, (8, 8))
        seen = views.apply_views(draw, chosen, examples, **sizes)
        return seen, views.replay(0, view_id, chosen, others, config, **sizes)

    rows = (np.asarray(x) for x in (view_id.example, view_id.partner))
    seen, again = both(*(images[x] for x in rows))
    np.testing.assert_allclose(again.student, seen.student, atol=1e-6)
