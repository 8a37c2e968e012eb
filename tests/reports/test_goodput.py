"""Goodput from events, against sums by hand."""

import json
import time

import pytest

from kdjax.core.timeline import Timeline, read_events
from kdjax.reports.goodput import find_attempts, goodput, overall


def start(time, step, setup=10.0, restore=0.0):
    fields = {"step": step, "setup": setup, "restore": restore}
    return {"event": "start", "time": time, **fields}


def steps(time, first, last, seconds, **parts):
    fields = {"from": first, "step": last, "seconds": seconds}
    return {"event": "steps", "time": time, **fields, **parts}


EVENTS = [
    start(10.0, 0),
    steps(70.0, 0, 100, 60.0, compile=15.0, data=5.0),
    steps(110.0, 100, 200, 40.0, checkpoint=4.0, evaluation=6.0),
    steps(150.0, 200, 300, 40.0),
    # Killed; 20 s later it goes on from step 250.
    start(185.0, 250, setup=12.0, restore=3.0),
    steps(245.0, 250, 400, 60.0, compile=10.0),
    {"event": "end", "time": 250.0, "step": 400, "seconds": 5.0, "reason": "finished"},
]


def test_the_time_of_each_attempt():
    first, second = find_attempts(EVENTS)
    assert (first.begun, first.ended, first.first, first.last) == (0.0, 150.0, 0, 300)
    assert first.reason == "" and second.reason == "finished"
    # 40 + 30 + 40 s of steps, of which half of the last 100 were trained again.
    assert first.seconds == {
        **{"setup": 10.0, "restore": 0.0, "compile": 15.0, "data": 5.0},
        **{"evaluation": 6.0, "checkpoint": 4.0, "lost": 20.0, "steps": 90.0},
    }
    assert first.goodput == pytest.approx(90 / 150)
    assert second.begun == 170.0 and second.total == 80.0
    assert second.seconds["steps"] == 50.0 and second.seconds["lost"] == 0.0


def test_the_time_of_all_attempts():
    attempts = find_attempts(EVENTS)
    spent = overall(attempts)
    assert spent["between"] == 20.0 and spent["steps"] == 140.0
    assert goodput(attempts) == pytest.approx(140 / 250)
    assert sum(spent.values()) == pytest.approx(245.0)


def test_a_clock_that_jumps(monkeypatch):
    """Set back by a day within an attempt, it changes no duration."""
    day, clock = 86_400.0, time.time
    written = []
    timeline = Timeline(written.append)
    timeline.start(0)
    timeline.steps(10)
    monkeypatch.setattr(time, "time", lambda: clock() - day)
    timeline.steps(20)
    timeline.end("finished")
    assert written[-1]["time"] < written[0]["time"]
    (attempt,) = find_attempts(written)
    assert 0 <= attempt.seconds["steps"] <= attempt.total < 3600
    assert all(0 <= x < 3600 for x in overall([attempt]).values())


def test_lines_that_are_no_events(tmp_path):
    """They are left out with one warning; a last one without an end is none yet."""
    lines = [json.dumps(x) for x in EVENTS]
    text = "\n".join([*lines[:2], "\x00{", "[]", *lines[2:], '{"event": "st'])
    (tmp_path / "events.jsonl").write_text(text)
    with pytest.warns(
        UserWarning, match=r"events.jsonl: lines that are no events .*\(2\)"
    ) as told:
        assert read_events(tmp_path, warn=True) == EVENTS
    assert len(told) == 1
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    assert read_events(tmp_path, warn=True) == EVENTS


def test_no_events():
    assert find_attempts([]) == [] and goodput([]) != goodput([])


def test_a_timeline_adds_up(monkeypatch):
    """What it writes is what it was told, and the parts never exceed the whole."""
    written = []
    timeline = Timeline(written.append)
    timeline.start(5, restore=0.5)
    with timeline.spend("data"):
        pass
    timeline.steps(9, memory={"host": 3})
    timeline.end("finished")
    begun, window, end = written
    assert begun["event"] == "start" and begun["step"] == 5
    assert (window["from"], window["step"]) == (5, 9) and window["memory"]["host"] == 3
    assert end["reason"] == "finished" and end["step"] == 9
    (attempt,) = find_attempts(written)
    assert attempt.total >= attempt.seconds["steps"] >= 0
