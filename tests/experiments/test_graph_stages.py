"""The stages of multi-head graph distillation: what fits, and a run resumed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from experiments.stages.multi_head_graph import multi_head_graph
from kdjax.core import runlog
from kdjax.models import zoo
from kdjax.models.graph_heads import find_widths
from tests.e2e.saved import saved
from tests.experiments.test_stages import crash, short


@pytest.mark.parametrize("scale", ["tiny", "digits", "cifar"])
def test_the_heads_fit_the_maps_of_both_networks(scale):
    runs = multi_head_graph(scale=scale).runs
    image = jnp.zeros((1, 32, 32, 3) if scale == "cifar" else (1, 8, 8, 1))
    configs = runs["heads"].networks["heads"].model, runs["student"].model
    heads, student, teacher = (
        zoo.make_model(config, 10) for config in (*configs, runs["heads"].model)
    )

    def maps(model):
        variables = model.init(jax.random.key(0), image)
        taps = model.apply(variables, image, train=False, rngs=None)[0].taps
        return [taps[f"stage{i}"] for i in (1, 2, 3)]

    ours, theirs = (jax.eval_shape(lambda m=m: maps(m)) for m in (student, teacher))
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    own = jax.eval_shape(lambda: heads.init(jax.random.key(0), image))
    assert find_widths(own) == tuple(x.shape[-1] for x in ours)


@pytest.mark.full
def test_graph_distillation_runs_and_resumes(tmp_path):
    """The heads move in their stage, the teacher does not; both resume bitwise."""
    stages = short(multi_head_graph(), tmp_path / "whole", checkpoint_every=1)
    # The deep teacher takes a minute to compile.
    shallow = {
        name: dataclasses.replace(run, model=dataclasses.replace(run.model, depth=8))
        for name, run in stages.runs.items()
    }
    stages = dataclasses.replace(stages, runs=shallow)
    whole = kdjax.jobs.run_stages(stages)
    teacher, same = (
        kdjax.load(whole / name, seed=1).variables["params"]
        for name in ("teacher", "heads")
    )
    jax.tree.map(np.testing.assert_array_equal, teacher, same)
    folder = tmp_path / "resumed"
    for crash_at, name in ((2, "heads"), (1, "student")):
        crash(stages, folder, name, crash_at)
    kdjax.jobs.run_stages(dataclasses.replace(stages, workdir=str(folder)))
    for name in stages.runs:
        pair = saved(whole / name), saved(folder / name)
        jax.tree.map(np.testing.assert_array_equal, *pair)
    lines = [x for x in runlog.read_metrics(whole / "student") if x["kind"] == "train"]
    assert np.min([line["graphs"] for line in lines]) > 0
