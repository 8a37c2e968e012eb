"""The bar on a terminal, and its lines elsewhere."""

import io

from rich.console import Console

from kdjax.train.progress import Bar


def shown(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140)
    with Bar("funmatch", 200, 0, console) as bar:
        for step in range(10, 201, 10):
            bar.show(step, 1234.5, "loss 0.2500" + "  agreement 87.5%" * (step > 100))
    return out.getvalue()


def test_a_terminal_sees_step_rate_loss_agreement_and_time_left():
    text = shown(terminal=True)
    assert "funmatch" in text and "200/200" in text
    assert "1,234 images/s" in text and "loss 0.2500" in text
    assert "agreement 87.5%" in text and "0:00:00" in text


def test_a_log_gets_ten_lines():
    lines = shown(terminal=False).strip().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("funmatch: step 20/200") and "agreement" not in lines[0]
    assert lines[-1].startswith("funmatch: step 200/200") and "87.5%" in lines[-1]
    assert "left" in lines[0] and lines[-1].endswith("left 0:00:00")
