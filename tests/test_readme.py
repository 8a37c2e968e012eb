"""README says what is so."""

import contextlib
import io
import pathlib
import re

import numpy as np

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def test_the_loss_example_prints_what_is_written_beside_it():
    block = README.split("## One loss")[1].split("```python\n")[1].split("```")[0]
    scope = {}
    shown = 0
    for line in block.splitlines():
        code, _, comment = line.partition("  # ")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, scope)
        if comment:
            np.testing.assert_allclose(
                numbers(out.getvalue()), numbers(comment), rtol=1e-5, atol=1e-6
            )
            shown += 1
    assert shown >= 4


def test_the_loop_runs_as_it_is_written():
    block = README.split("### Your own loop")[1].split("```python\n")[1].split("```")[0]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(block, {})
    loss, agreement = numbers(out.getvalue())
    assert loss > 0 and 0 <= agreement <= 1


def test_the_files_it_names_are_there():
    root = pathlib.Path(__file__).parents[1]
    for reference in re.findall(r"experiments/[\w/]+\.py", README):
        assert (root / reference).is_file(), reference
