"""Every public name has an example that is executed, and a plain first line."""

import pytest

from kdjax import losses, targets

FUNCTIONS = {
    **{name: entry.function for name, entry in losses.REGISTRY.items()},
    **{name: getattr(targets, name) for name in targets.__all__},
}
RIDDLES = ("What", "Which", "Whom", "Who", "Whether", "Where", "How", "When")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring(name):
    text = FUNCTIONS[name].__doc__ or ""
    assert ">>> " in text, f"{name}: expected an example (>>>) in its docstring"
    assert text.split()[0] not in RIDDLES
