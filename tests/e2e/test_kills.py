"""Runs that are killed again and again end as one that was not, to the last bit."""

import random

import pytest

from experiments.faults import kills

# Real processes: the full tier.
pytestmark = pytest.mark.full

# Kills of a run, and runs of each kind: 30 kills in all, if none ends before.
MOST, RUNS = 5, 3


@pytest.mark.parametrize("kind", kills.KINDS)
def test_random_kills(kind, tmp_path):
    expected, seconds = kills.undisturbed(kind, tmp_path)
    draw, count = random.Random(0), 0
    for number in range(RUNS):
        words = kills.command(kind, tmp_path / str(number))
        count += kills.kill_again_and_again(words, seconds, MOST, draw)
        assert kills.results(tmp_path / str(number)) == expected
    assert count >= RUNS


def test_a_changed_result_is_seen(tmp_path):
    """What compares the runs would notice one changed number."""
    words = kills.command("train", tmp_path)
    kills.finish_timed(words)
    expected = kills.results(tmp_path)
    file = tmp_path / "run" / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"validation"' in line)
    lines[at] = lines[at].replace('"accuracy": [0.', '"accuracy": [0.1', 1)
    file.write_text("".join(lines))
    assert len(expected) > 50 and kills.results(tmp_path) != expected
