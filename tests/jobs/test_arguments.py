"""Arguments of the functions in Python: another type is one line."""

import pytest

from kdjax import jobs
from kdjax.config import ConfigError


@pytest.mark.parametrize("value", [{"steps": 4}, None, "runs/base"])
@pytest.mark.parametrize(
    "job",
    [jobs.distill, jobs.train, jobs.cache_targets, jobs.estimate, jobs.show_views],
)
def test_what_is_no_run_is_refused(job, value):
    with pytest.raises(ConfigError) as error:
        job(value)
    kind = type(value).__name__
    assert str(error.value) == f"run: expected a kdjax.Run, got {kind}"


@pytest.mark.parametrize("value", [None, 3])
def test_what_is_no_path_is_refused(value):
    line = f"^folder: expected a path, got {type(value).__name__}$"
    for job in (jobs.load, jobs.evaluate, lambda x: jobs.export(x, "safetensors")):
        with pytest.raises(ConfigError, match=line):
            job(value)
    with pytest.raises(ConfigError, match="^student: expected a student of kdjax.load"):
        next(jobs.predict(value, ["a.png"]))
