"""`kdjax experiments` lists what can be read, and names what cannot."""

import pytest

from kdjax.cli.main import main

GOOD = """
from kdjax.experiments import Experiment
from kdjax.presets import digits

EXPERIMENT = Experiment(
    claim="good",
    variants={"a": lambda scale="tiny": digits(steps=10)},
    durations={"tiny": (1, 4)},
)
"""


def test_a_broken_file_does_not_hide_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    broken = GOOD.replace("digits(steps=10)", "3")
    lacking = GOOD.replace("EXPERIMENT", "EXPERMENT")
    texts = {"a_broken": broken, "b_good": GOOD, "c_lacking": lacking, "d_no": "X = 1"}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["experiments", "own"])
    told = capsys.readouterr()
    assert stop.value.code == 2
    assert told.out == (
        "own/b_good: good\n"
        "  kdjax sweep own/b_good.py --scale tiny"
        "  (2 runs, 50 steps, hours not measured; not begun)\n"
        "One finished run (--variants NAME --times N) measures the hours.\n"
    )
    assert told.err == (
        "kdjax: own/a_broken.py: variants['a']: expected a Run, or Stages, got int\n"
        "  own/c_lacking.py: experiment: did you mean 'EXPERMENT'? expected "
        "EXPERIMENT = Experiment(...) in own/c_lacking.py, got none\n"
    )


def test_a_folder_without_any_says_so(tmp_path, capsys):
    (tmp_path / "config.py").write_text("X = 1")
    with pytest.raises(SystemExit):
        main(["experiments", str(tmp_path)])
    told = capsys.readouterr()
    assert "folder: expected a folder with files that hold EXPERIMENT = " in told.err
    assert not told.out
