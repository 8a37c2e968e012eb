"""Models with values for their variables: trained, published, or several as one."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax import config as configs
from kdjax.config import ConfigError, Ensemble, Run, require
from kdjax.core import runlog
from kdjax.core.types import Array, BoundModel, Model, Output, PyTree
from kdjax.models import weights, zoo
from kdjax.setup.runs import read_run
from kdjax.teachers.ensemble import ensemble
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints


def model_of(run: Run, classes: int, channels: int, model: Model | None) -> BoundModel:
    """The model that a run trains, with shapes in place of values."""
    code = "" if model else zoo.fingerprint_model(run.model)
    model = model or zoo.make_model(run.model, classes)
    size = run.model.resolution
    image = jnp.zeros((1, size, size, channels), jnp.float32)

    def init(seeds: Array) -> PyTree:
        return jax.vmap(lambda seed: model.init(jax.random.key(seed), image))(seeds)

    shapes = jax.eval_shape(init, np.arange(run.seeds))
    return BoundModel(model, shapes, 0, size, (run.model.normalization,), (code,))


def load_trained(
    folder: str | pathlib.Path,
    mesh: Mesh,
    *,
    model: Model | None = None,
    step_number: int | None = None,
    field: str = "",
) -> BoundModel:
    """The trained model of a finished run's folder, on the devices of a mesh.

    model: in place of the one that the folder's config names.
    step_number: a checkpoint's step; None takes the last.
    field: the field whose `run` and `step` these are, for errors.
    """
    summary = runlog.read_summary(folder)
    if summary is None:
        reason = "expected a finished run, it has no summary.json"
        if field:
            raise ConfigError(f"{field}.run", reason=f"{folder}: {reason}")
        raise ConfigError(str(folder), reason=reason)
    blank = model_of(read_run(folder), summary["classes"], summary["channels"], model)
    where = sharding.state_sharding(mesh, blank.variables)
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        blank.variables,
        where,
    )
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        steps = checkpoints.steps()
        ok = step_number is None or step_number in steps
        want = f"a step whose checkpoint {folder} has, of {steps}"
        require(ok, f"{field}.step" if field else "step_number", want, step_number)
        network = summary.get("network", "student")
        values = checkpoints.restore_network(like, network, step_number)
    finally:
        checkpoints.close()
    return blank._replace(variables=values)


def published(
    config: configs.ModelConfig, classes: int, channels: int, field: str
) -> BoundModel:
    """A model with the published weights that its config names.

    field: the config's own.
    """
    name = config.weights
    if "://" not in name and runlog.is_finished(weights.expand_path(name)):
        where = f"{field.removesuffix('.model')}.run"
        want = f"published weights (a run folder goes in {where})"
        raise ConfigError(f"{field}.weights", want, name, shown=f"the run {name}")
    model = zoo.make_model(config, classes, field=field)
    variables = zoo.load_pretrained(config, classes, channels, field)
    code = (zoo.fingerprint_model(config, field),)
    scale = (config.normalization,)
    return BoundModel(model, variables, None, config.resolution, scale, code)


def starting_variables(
    run: Run, classes: int, channels: int, mesh: Mesh
) -> tuple[PyTree, int | None]:
    """What the model of a run starts from, and the axis of its seeds.

    `run.model.weights` names published weights, which all seeds share, or the folder of
    a finished run, of which each seed takes its own number's (or all its only one).
    Without any: None, None.

    Raises ConfigError naming `model.weights` where they do not fit the model.
    """
    folder = run.model.weights
    if not folder:
        return None, None
    folder = folder if "://" in folder else weights.expand_path(folder)
    if "://" in folder or not runlog.is_finished(folder):
        return zoo.load_pretrained(run.model, classes, channels), None
    found = load_trained(folder, mesh).variables
    wants = model_of(run, classes, channels, None).variables
    misfits = weights.find_mismatches(
        *(jax.tree.map(_of_one, tree) for tree in (wants, found))
    )
    if misfits:
        want = f"a run that trained this very model ({run.model.name})"
        got = f"{folder}, {weights.format_mismatches(misfits)}"
        raise ConfigError("model.weights", want, folder, shown=got)
    its = read_run(folder)
    if its.seeds == 1:
        return jax.tree.map(lambda x: x[0], found), None
    first = run.seed - its.seed
    ok = 0 <= first and first + run.seeds <= its.seeds
    want = f"a run of seeds {run.seed} to {run.seed + run.seeds - 1}, or of one"
    require(ok, "model.weights", want, folder)
    return jax.tree.map(lambda x: x[first : first + run.seeds], found), 0


def _of_one(x: Any) -> jax.ShapeDtypeStruct:
    """The shape of an array of all seeds, for one of them."""
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)


def fit_seeds(
    trained: BoundModel, its_seeds: int, run: Run, field: str = "teacher.run"
) -> BoundModel:
    """A model for each seed of a run: its own one, or one that all share."""
    if its_seeds == 1 and run.seeds > 1:
        first = jax.tree.map(lambda x: x[0], trained.variables)
        return trained._replace(variables=first, axis=None)
    want = f"a run of {run.seeds} seeds, or of 1 that all share"
    require(its_seeds == run.seeds, field, want, its_seeds)
    return trained


def average(members: list[BoundModel], run: Run) -> BoundModel:
    """The members of a run's ensemble as one model over a tuple of views.

    Raises ConfigError where their numbers of seeds differ from those of the run.
    """
    config = run.teacher
    assert isinstance(config, Ensemble)
    ones = (1.0,) * len(members)
    model = ensemble(
        [member.model for member in members],
        mean=config.mean,
        weights=config.weights or ones,
        temperatures=config.temperatures or ones,
        at=run.mean_at or 1.0,
    )
    axis = 0 if any(member.axis == 0 for member in members) else None
    variables = tuple(_with_axis(member, axis, run.seeds) for member in members)
    scales = tuple(scale for member in members for scale in member.normalization)
    sizes = tuple(member.resolution for member in members)
    code = tuple(text for member in members for text in member.code)
    return BoundModel(model, variables, axis, sizes, scales, code)


def _with_axis(part: BoundModel, axis: int | None, seeds: int) -> PyTree:
    if part.axis == axis:
        return part.variables

    def repeat(x: Any) -> Any:
        shape = (seeds, *x.shape)
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(shape, x.dtype)
        return jnp.broadcast_to(x, shape)

    return jax.tree.map(repeat, part.variables)


def at_precision(trained: BoundModel, precision: str) -> BoundModel:
    """The same model computing in `precision`; what it answers stays float32.

    Its parameters are kept in that precision too, at half the memory.
    """
    if precision == "float32":
        return trained

    def cast(x: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, precision)
        return jnp.asarray(x, precision)

    def apply(variables, images, *, train=False, rngs=None):
        seen = jax.tree.map(lambda x: x.astype(precision), images)
        found = trained.model.apply(variables, seen, train=train, rngs=rngs)
        output, state = found
        wide = jax.tree.map(lambda x: x.astype(jnp.float32), tuple(output))
        return Output(*wide), state

    def init(key, images):
        return jax.tree.map(cast, trained.model.init(key, images))

    variables = jax.tree.map(cast, trained.variables)
    return trained._replace(model=Model(init, apply), variables=variables)
