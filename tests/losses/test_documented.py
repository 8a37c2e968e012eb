"""Every public name is explained: a row in the page, an example that is executed."""

import pathlib

from kdjax import losses

PAGE = (pathlib.Path(losses.__file__).parent / "README.md").read_text()


def test_every_public_name_has_a_row():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    first = [row.split("|")[1] for row in rows]
    for name in losses.__all__:
        if name != "RELATION":
            assert any(f"`{name}`" in cell for cell in first), name


def test_every_public_name_has_an_example():
    for name in losses.__all__:
        if name != "RELATION":
            assert ">>> " in (getattr(losses, name).__doc__ or ""), name
