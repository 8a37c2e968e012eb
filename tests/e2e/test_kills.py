"""Commands that are killed again and again end as one that was not, to the last bit."""

import random

import pytest

from experiments.faults import kills

# Real processes: the full tier.
pytestmark = pytest.mark.full

# Of each of the six commands: 30 in all.
MOST = 5


@pytest.mark.parametrize("kind", kills.KINDS)
def test_random_kills(kind, tmp_path):
    tally = kills.tally_kills(kind, MOST, MOST, random.Random(0), tmp_path)
    assert tally.kills == MOST and tally.compared > 50
    assert (tally.lost, tally.differ) == (0, [])
    if kind != "cache-targets":
        assert tally.acknowledged > 0


def test_a_changed_result_is_seen(tmp_path):
    """What compares the runs would notice one changed number."""
    folder = tmp_path / "job"
    kills.finish("train", folder)
    expected = kills.results(folder)
    file = folder / "run" / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"validation"' in line)
    lines[at] = lines[at].replace('"accuracy": [0.', '"accuracy": [0.1', 1)
    file.write_text("".join(lines))
    assert len(expected) > 50 and kills.results(folder) != expected


def test_a_lost_step_is_seen(tmp_path):
    """A start before the last checkpoint counts as lost steps."""
    folder = tmp_path / "job"
    kills.finish("train", folder)
    saved = kills.saved_steps(folder)["run"]
    assert saved == (60, 1)
    events = folder / "run" / "events.jsonl"
    with open(events, "a") as file:
        file.write('{"event": "start", "time": 0.0, "step": 45}\n')
    assert kills.lost_steps(folder, {"run": saved}) == 15
