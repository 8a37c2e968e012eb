"""What the end-to-end tests share."""

import dataclasses

import pytest

from kdjax.config import Cache, Data, Optim, Scalar, Term, Views

STEPS = 50


@pytest.fixture
def small(tiny_run, tmp_path):
    """A run of 50 updates of a small network under a linear teacher."""

    def make(folder, mode="function_matching", cache=None, **changes):
        base = tiny_run()
        teacher = dataclasses.replace(base.teacher, cache=cache or Cache())
        run = tiny_run(
            workdir=str(tmp_path / folder),
            seeds=2,
            steps=STEPS,
            batch=16,
            evaluate_every=STEPS,
            checkpoint_every=STEPS,
            log_every=10,
            data=Data("digits", train="train[:72]"),
            optim=Optim(warmup=5),
            views=Views(mode=mode, flip=True),
            terms={"soft": Term(temperature=Scalar(3.0))},
            teacher=teacher,
        )
        return dataclasses.replace(run, **changes)

    return make
