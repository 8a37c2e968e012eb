"""A fault at every file operation leaves nothing lost and nothing damaged."""

import shutil

import pytest

from experiments.faults import points

# Real processes, and a C compiler: the full tier.
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc"),
]

# Every n-th operation. The experiment tries them all.
EVERY = {"checkpoints": 24, "target cache": 3, "log": 1}


@pytest.fixture(scope="module", autouse=True)
def interposed():
    with points.interposed():
        yield


@pytest.mark.parametrize("fault", points.FAULTS)
@pytest.mark.parametrize("work", points.WORKS)
def test_faults_of_a_work(work, fault):
    outcomes = points.try_all(work, fault, EVERY[work])
    assert len(outcomes) > 1
    assert [x.wrong for x in outcomes if x.wrong] == []
    killed = {x.how for x in outcomes} == {"killed"}
    assert killed == (fault in ("killed", "torn write"))


@pytest.mark.parametrize("work", points.CONTROLS)
def test_work_that_commits_first_is_caught(work):
    """A harness that finds nothing wrong with it would prove nothing."""
    outcomes = points.try_all(work, "killed", EVERY[work], control=True)
    assert any(x.wrong for x in outcomes)
