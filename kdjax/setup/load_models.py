"""Loading models with their variables: of run folders, and of published weights."""

import dataclasses
import pathlib
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax import config as configs
from kdjax.config import (
    ConfigError,
    ModelConfig,
    Run,
    Term,
    beneath,
    replace_published,
    require,
    require_known,
    require_local,
    require_network,
    require_seeds,
)
from kdjax.core import bucket, runlog
from kdjax.core.types import STUDENT, Array, BoundModel, Model, PyTree
from kdjax.data.source import Source
from kdjax.models import weights, zoo
from kdjax.strategies.pairing import expand_pairs, name_projector
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints

UNFINISHED = (
    "expected a finished run, it has no whole summary.json (the command that began it "
    "goes on)"
)


class InitialVariables(NamedTuple):
    """Variables that a network starts from.

    variables: one set for all seeds, or one for each; None where the seeds draw them.
    axis: 0 where they have an axis of seeds, else None.
    """

    variables: PyTree = None
    axis: int | None = None


def read_run(folder: str | pathlib.Path) -> Run:
    """The config of a run folder; an error that names `run` where there is none."""
    require_local(folder, "run")
    run = configs.from_dict(runlog.read_config(folder))
    # The config of a copy has the bucket.
    copied = bucket.find_url(folder) is not None
    return dataclasses.replace(run, workdir=str(folder)) if copied else run


def complete_models(run: Run) -> tuple[Run, list[str]]:
    """A run whose model and teachers have all fields that their weights determine.

    Returns:
      The run, and a line for each model that was completed.

    Raises ConfigError naming a field that the weights leave open.
    """
    lines = []

    def complete(config: ModelConfig, field: str, network: str = "") -> ModelConfig:
        completed = complete_model(config, field, network)
        filled = {name: getattr(completed, name) for name in config.open_fields}
        if config.weights and filled:
            values = ", ".join(f"{name} {value}" for name, value in filled.items())
            lines.append(f"{field}: {values}, as published with {config.weights}")
        return completed

    model = complete(run.model, "model")
    networks = {
        name: dataclasses.replace(
            network,
            model=complete(network.model, f"networks.{name}.model", network.network),
        )
        for name, network in run.networks.items()
    }
    teacher = replace_published(run.teacher, complete)
    run = dataclasses.replace(run, model=model, networks=networks, teacher=teacher)
    return run, lines


def complete_model(config: ModelConfig, field: str, network: str = "") -> ModelConfig:
    """A model's config with the fields that its published weights determine.

    Reads headers alone. A config without weights, or with all fields, stays as it is.

    Args:
      field: the config's own, for errors.
      network: as in `load_trained`, of a run folder.
    """
    name = config.weights
    if not name:
        return config.filled({})
    path = name if "://" in name else weights.expand_path(name)
    if "://" not in path and runlog.is_finished(path):
        with beneath(field.removesuffix(".model"), {"network": "network"}):
            published = dataclasses.asdict(_model_of(path, network))
        _warn_of_other(config, "normalization", published["normalization"], field)
        _warn_of_other(config, "modality", published["modality"], field)
        return config.filled(published)
    try:
        published = weights.recognize(name)
    except weights.WeightsError as error:
        raise ConfigError(f"{field}.weights", reason=str(error)) from error
    if published is None:
        return _complete_unknown(config, field)
    _warn_of_other(config, "normalization", published.normalization, field)
    scale_open = not published.normalization and "normalization" in config.open_fields
    choices = " or ".join(published.choices)
    expected = (
        f"{choices}: the names in {name} ({published.name}, {published.publisher}) "
        "do not tell the pixel scale"
    )
    require(not scale_open, f"{field}.normalization", expected, config.normalization)
    return config.filled(published.fields)


def _complete_unknown(config: ModelConfig, field: str) -> ModelConfig:
    """Weights of no known publisher: everything but the defaults must be stated."""
    if ":" in config.name:  # A function of the user's own scales as it likes.
        return config.filled({})
    also = " and ".join(f"{field}.{x}" for x in ("name", "norm", "normalization"))
    reason = f"{config.weights} is of no known publisher: set {also}"
    for name in ("name", "normalization"):
        if name in config.open_fields:
            raise ConfigError(f"{field}.{name}", reason=reason)
    return config.filled({})


def _warn_of_other(config: ModelConfig, name: str, published: str, field: str) -> None:
    """Warn of a pixel scale or a modality that is not that of the weights."""
    stated = getattr(config, name)
    if published and stated not in ("auto", published):
        text = f"{field}.{name} is {stated}, but {config.weights} was trained"
        warnings.warn(f"{text} with {published}", stacklevel=2)


def trace_model(
    run: Run, classes: int, channels: int, model: Model | None = None
) -> BoundModel:
    """The model that a run trains, with shapes in place of values.

    model: passed from Python, in place of the one of `run.model`.
    """
    code = "" if model else zoo.fingerprint_model(run.model)
    model = model or zoo.make_model(run.model, classes)
    size = run.model.resolution
    image = jnp.zeros((1, size, size, channels), jnp.float32)

    def init(seeds: Array) -> PyTree:
        return jax.vmap(lambda seed: model.init(jax.random.key(seed), image))(seeds)

    try:
        shapes = jax.eval_shape(init, np.arange(run.seeds))
    except ConfigError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        expected = f"expected a model of images {image.shape}, its init raised"
        reason = f"{expected} {type(error).__name__}: {line}"
        raise ConfigError("model", reason=reason) from error
    return BoundModel(model, shapes, 0, size, (run.model.input_scale,), (code,))


def load_trained(
    folder: str | pathlib.Path,
    mesh: Mesh,
    *,
    model: Model | None = None,
    step_number: int | None = None,
    field: str = "",
    network: str = "",
) -> BoundModel:
    """The trained model of a finished run's folder, on the devices of a mesh.

    Args:
      model: in place of the one that the folder's config names.
      step_number: a checkpoint's step; None takes the last.
      field: the config section whose `run` and `step` errors name.
      network: one of its `networks`; by default the one that it evaluates.
    """
    summary = runlog.read_summary(folder)
    if summary is None:
        if field:
            raise ConfigError(f"{field}.run", reason=f"{folder}: {UNFINISHED}")
        raise ConfigError(str(folder), reason=UNFINISHED)
    for name in ("classes", "channels"):
        if name not in summary:
            file = pathlib.Path(folder) / "summary.json"
            raise runlog.RunFolderError(f"{file}: expected a number of {name} in it")
    shape = summary["classes"], summary["channels"]
    run = read_run(folder)
    if network:
        require_known(network, run.networks, "network")
        run = dataclasses.replace(run, model=run.networks[network].model)
    abstract = trace_model(run, *shape, model)
    if model is None and not network:
        _warn_of_other_code(folder, run.model, abstract.code[0])
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract.variables,
        sharding.state_sharding(mesh, abstract.variables),
    )
    checkpoints = Checkpoints(folder)
    try:
        steps = checkpoints.steps()
        ok = step_number is None or step_number in steps
        expected = f"a step whose checkpoint {folder} has, of {steps}"
        require(ok, f"{field}.step" if field else "step_number", expected, step_number)
        network = network or summary.get("network", "student")
        variables = checkpoints.restore_network(like, network, step_number)
    finally:
        checkpoints.close()
    return abstract._replace(variables=variables)


def _warn_of_other_code(
    folder: str | pathlib.Path, config: configs.ModelConfig, code: str
) -> None:
    """Warn of a model in a file of the user's that changed after its training."""
    before = runlog.read_config(folder).get("content", {}).get("model", "")
    if code and before and code != before:
        file = config.name.rpartition(":")[0]
        text = f"{folder}: {file} changed since this run began; its variables may"
        warnings.warn(f"{text} compute other outputs now", stacklevel=3)


def load_pretrained(
    config: ModelConfig, classes: int, channels: int, field: str
) -> BoundModel:
    """A model with the published weights that its config names, or with its own.

    field: the config's own, for errors.
    """
    name = config.weights
    is_local = bool(name) and "://" not in name
    if is_local and runlog.is_finished(weights.expand_path(name)):
        run_field = f"{field.removesuffix('.model')}.run"
        expected = f"published weights (a run folder goes in {run_field})"
        raise ConfigError(f"{field}.weights", expected, name, shown=f"the run {name}")
    model = zoo.make_model(config, classes, field=field)
    if name:
        variables = zoo.load_pretrained(config, classes, channels, field)
    else:
        variables = _own_variables(model, config.resolution, channels, field)
    scale, code = (config.input_scale,), (zoo.fingerprint_model(config, field),)
    return BoundModel(model, variables, None, config.resolution, scale, code)


def _own_variables(model: Model, size: int, channels: int, field: str) -> PyTree:
    """Variables that a model of the user's own brings with it.

    Random ones, which differ from key to key, are refused: they would teach nothing.
    """
    image = jnp.zeros((1, size, size, channels), jnp.float32)
    one, two = (model.init(jax.random.key(seed), image) for seed in range(2))
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    same = all(np.array_equal(a, b) for a, b in pairs)
    expected = "weights, or a function whose init returns the same ones for every key"
    require(same, f"{field}.weights", expected, "")
    return one


def load_initial(
    run: Run, train: Source, mesh: Mesh, student: Model | None = None
) -> dict[str, InitialVariables]:
    """The variables that the networks of a run start from, where its config names some.

    They are by network; that of `run.model` is `STUDENT`, and those of projectors are
    by `name_projector`. A `student` passed from
    Python draws its own. A model's `weights` name published weights, which all seeds
    share, or the folder of a finished run. Each seed starts from the same seed of that
    run, or all from its only one.

    Raises ConfigError naming the `weights` that do not fit their model.
    """
    initial: dict[str, InitialVariables] = {}
    if run.model.weights and student is None:
        initial[STUDENT] = _load_initial(run, train, mesh)
    for name, network in run.networks.items():
        own = dataclasses.replace(run, model=network.model)
        names = {"model": "model", "network": "network"}
        with beneath(f"networks.{name}", names):
            if network.model.weights:
                initial[name] = _load_initial(own, train, mesh, network.network)
            elif network.frozen:
                shape = train.classes, train.shape[-1]
                bound = load_pretrained(network.model, *shape, "model")
                initial[name] = InitialVariables(bound.variables)
    for name, field, term in expand_pairs(run.terms):
        if term.projector_weights:
            with beneath(field):
                initial[name_projector(name)] = _load_projector(run, term, name)
    return initial


def _load_projector(run: Run, term: Term, name: str) -> InitialVariables:
    """The projector of the term of that name in the run of `projector_weights`."""
    folder, field = weights.expand_path(term.projector_weights), "projector_weights"
    checkpoints = Checkpoints(folder)
    try:
        variables = checkpoints.read_network(name_projector(name))
    finally:
        checkpoints.close()
    require(variables is not None, field, _projector_of(name), folder)
    return _match_seeds(run, folder, variables, field)


def require_projector(before: Run, name: str, term: Term, field: str, of: str) -> None:
    """Refuse an earlier run that trained no projector of this kind.

    Args:
      name: of the term, each pair of taps by itself.
      field: the term's own, for errors.
      of: the earlier run in words.
    """
    terms = {x.name: x.term for x in expand_pairs(before.terms)}
    theirs, at = terms.get(name), f"{field}.projector_weights"
    if theirs is None or not (theirs.projectors and theirs.counts):
        raise ConfigError(at, _projector_of(name), of)
    own, its = (" ".join(x.projectors) for x in (term, theirs))
    if own != its:
        raise ConfigError(at, f"the projector {own}", shown=f"{its} of {of}")


def _projector_of(name: str) -> str:
    return f"a run whose term {name} trained a projector"


def _load_initial(
    run: Run, train: Source, mesh: Mesh, network: str = ""
) -> InitialVariables:
    """The variables that `run.model.weights` names; network: as in `load_trained`."""
    folder = run.model.weights
    classes, channels = train.classes, train.shape[-1]
    folder = folder if "://" in folder else weights.expand_path(folder)
    if "://" in folder or not runlog.is_finished(folder):
        return InitialVariables(zoo.load_pretrained(run.model, classes, channels))
    variables = load_trained(folder, mesh, network=network).variables
    abstract = trace_model(run, classes, channels).variables
    mismatches = weights.find_mismatches(
        *(jax.tree.map(_of_one_seed, tree) for tree in (abstract, variables))
    )
    if mismatches:
        require_network(run.model, _model_of(folder, network), "model", str(folder))
        expected = f"a run that trained this very model ({run.model.name})"
        got = f"{folder}, {weights.summarize_mismatches(mismatches)}"
        raise ConfigError("model.weights", expected, folder, shown=got)
    return _match_seeds(run, folder, variables, "model.weights")


def _model_of(folder: str | pathlib.Path, network: str = "") -> ModelConfig:
    """The config of a network of a finished run, as in `load_trained`."""
    run = read_run(folder)
    if not network:
        return run.model
    require_known(network, run.networks, "network")
    return run.networks[network].model


def _match_seeds(
    run: Run, folder: str | pathlib.Path, variables: PyTree, field: str
) -> InitialVariables:
    """Of the variables of a run's folder those of the same seeds, or its only ones."""
    pretraining = read_run(folder)
    require_seeds(run, pretraining, field, str(folder))
    if pretraining.seeds == 1:
        return InitialVariables(jax.tree.map(lambda x: x[0], variables))
    first = run.seed - pretraining.seed
    variables = jax.tree.map(lambda x: x[first : first + run.seeds], variables)
    return InitialVariables(variables, 0)


def _of_one_seed(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
