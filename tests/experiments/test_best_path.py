"""The path of teacher assistants by dynamic programming."""

import pathlib

import pytest

from experiments.stages.best_path import best_paths, link

# Accuracy of a network by its size and that of its teacher.
LINKS = {(8, 4): 0.9, (8, 3): 0.5, (8, 2): 0.6, (4, 3): 0.8, (4, 2): 0.7, (3, 2): 0.65}


def accuracy(path):
    """A link is worth less under a worse teacher."""
    if len(path) == 1:
        return 1.0
    return LINKS[path[-2:]] * accuracy(path[:-1]) ** 0.1


def test_the_best_path_is_that_of_a_search_over_all():
    best, found = best_paths((8, 4, 3, 2), accuracy)
    every = [(8, 2), (8, 4, 2), (8, 3, 2), (8, 4, 3, 2)]
    assert best[2] == max(every, key=accuracy) == (8, 4, 2)
    assert best[4] == (8, 4) and best[3] == (8, 4, 3)
    # Each link once: the teacher, and 1 + 2 + 3 links.
    assert len(found) == 7 and (8, 3, 2) not in found


def test_two_sizes_are_plain_distillation():
    best, found = best_paths((8, 2), accuracy)
    assert best == {8: (8,), 2: (8, 2)} and [*found] == [(8,), (8, 2)]


@pytest.mark.parametrize(
    ("scale", "sizes"), [("digits", (8, 4, 2)), ("cifar", (56, 20))]
)
def test_a_link_learns_from_the_run_before_it(scale, sizes):
    root = pathlib.Path("runs")
    run = link(sizes, scale, root, seeds=2)
    before = link(sizes[:-1], scale, root)
    run.check()
    before.check()
    assert run.teacher.run == before.workdir and run.seeds == 2
    assert link(sizes[:1], scale, root).teacher is None
