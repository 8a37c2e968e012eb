"""The bar on a terminal, its lines elsewhere, and the stages of a job."""

import io
import re
import time

from rich.console import Console

from kdjax.train import loop, progress
from kdjax.train.progress import Bar, stage


def console_of(terminal=False):
    out = io.StringIO()
    return out, Console(file=out, force_terminal=terminal, width=160)


def shown(terminal):
    out, console = console_of(terminal)
    with Bar("funmatch", 200, 0, console) as bar:
        for step in range(10, 201, 10):
            bar.show(step, 1234.5, "loss 0.2500" + "  agreement 87.5%" * (step > 100))
    return out.getvalue()


def test_a_terminal_sees_step_rate_loss_agreement_and_time_left():
    text = shown(terminal=True)
    assert "funmatch" in text and "200/200" in text
    assert "1,234 images/s" in text and "loss 0.2500" in text
    assert "agreement 87.5%" in text and "0:00:00" in text


def test_a_log_gets_ten_lines_after_its_first():
    first, *lines = shown(terminal=False).strip().splitlines()
    assert first == "funmatch: step 0/200  compiling"
    assert len(lines) == 10
    assert lines[0].startswith("funmatch: step 20/200") and "agreement" not in lines[0]
    assert lines[-1].startswith("funmatch: step 200/200") and "87.5%" in lines[-1]
    assert "left" in lines[0] and lines[-1].endswith("left 0:00:00")


def test_a_log_gets_a_line_after_a_silence(monkeypatch):
    """While the first call compiles, and between two lines of metrics."""
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    out, console = console_of()
    with Bar("slow", 1000, 0, console) as bar:
        time.sleep(0.2)
        bar.compiled(0.2)
        bar.advance(40)
        bar.show(50, 10.0, "loss 1.0000")
        bar.advance(57)
        time.sleep(0.2)
    lines = out.getvalue().splitlines()
    compiling = [x for x in lines if x.startswith("slow: step 0/1000  compiling: 0.")]
    assert compiling and "so far" in compiling[0]
    waiting = [x for x in lines if x.startswith("slow: step 57/1000")]
    assert waiting and waiting[0].endswith("loss 1.0000  (as of step 50)")


def test_a_long_compilation_is_reported_with_its_time():
    out, console = console_of()
    with Bar("slow", 10, 0, console) as bar:
        bar.compiled(0.4)
        bar.compiled(12.34)
    assert out.getvalue().splitlines()[1:] == ["slow: step program compiled in 12.3 s"]


def test_a_stage_says_what_is_done_and_for_how_long(monkeypatch):
    out, console = console_of()
    with stage(console, "reading data"):
        pass
    assert out.getvalue() == "reading data ...\n"
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    monkeypatch.setattr(progress, "_SHORT", 0.1)
    with stage(console, "reading data"):
        time.sleep(0.2)
    lines = out.getvalue().splitlines()[2:]
    assert lines[0].startswith("reading data: 0.") and lines[0].endswith("s so far")
    seconds = re.fullmatch(r"reading data: (\d+\.\d) s", lines[-1])
    assert seconds and float(seconds[1]) >= 0.2


def test_a_stage_on_a_terminal_is_a_spinner():
    out, console = console_of(terminal=True)
    with stage(console, "reading data"):
        time.sleep(0.3)
    assert "reading data ..." in out.getvalue()


def test_the_bar_dates_what_was_validated():
    """Agreement is of the training steps; accuracy is of a named step."""
    shown, written = [], []
    bar = type("Bar", (), {"show": lambda _, *x: shown.append(x)})()
    plan = loop.Plan("run", 100, 64, 10, 20, 20, 1)
    lines = loop._Lines(plan, loop._Clock(0.0), written.append, bar)
    lines._compiled = True
    bar.advance = lambda step: None
    lines.add(0, 1, {"loss": [[0.5]], "agreement": [[0.25]]})
    lines.write_train(1)
    assert shown[-1][2].endswith("steps/s  loss 0.5000  agreement 25.0%")
    lines.write_validation(20, {"accuracy": [0.8, 0.9], "agreement": [0.1, 0.1]})
    lines.add(20, 21, {"loss": [[0.5]]})
    lines.write_train(21)
    assert shown[-1][2].endswith("loss 0.5000  validation 85.0% at step 20")
