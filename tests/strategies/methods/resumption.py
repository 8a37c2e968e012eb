"""A run that crashes and is resumed, beside the same run in one piece."""

import dataclasses

import jax
import numpy as np
import pytest

from kdjax.core import runlog
from tests.e2e.saved import saved


def check_resumes_bitwise(job, run, folder, crash_at):
    """Run a job in `folder` until it crashes at a step, resume it, and compare.

    job: `run -> folder`, as `kdjax.jobs.train`.

    Returns the folder of the resumed run.
    """
    begun = dataclasses.replace(run, workdir=str(folder))
    append = runlog.append_metrics

    def crash(path, line):
        append(path, line)
        if line["step"] == crash_at:
            raise RuntimeError("a crash")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runlog, "append_metrics", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            job(begun)
    resumed, whole = (saved(job(x)) for x in (begun, run))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    return folder
