"""The list of small wrong changes: each has its place in the package."""

import pytest

from tests import mutate


@pytest.mark.parametrize("mutant", mutate.MUTANTS, ids=lambda mutant: mutant.what)
def test_a_change_has_one_place_and_its_tests(mutant):
    assert mutate.locate(mutant).is_file()
    for path in mutant.paths.split():
        assert (mutate.ROOT / path).exists()


def test_there_are_thirty_one():
    assert len({mutant.what for mutant in mutate.MUTANTS}) == 31
