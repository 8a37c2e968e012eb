"""Outputs of several teachers, as those of an ensemble in a batch."""

from kdjax.core.types import Output
from tests.strategies.methods import setting


def several_outputs(*members):
    """The outputs of an ensemble out of those of its members, by their mean logits."""
    taps = {f"{i}/logits": member.logits for i, member in enumerate(members)}
    for i, member in enumerate(members):
        taps |= {f"{i}/{name}": tap for name, tap in member.taps.items()}
    return Output(sum(member.logits for member in members) / len(members), taps)


def draw_member(seed, width=5, classes=setting.CLASSES):
    """Random logits and an embedding of one teacher."""
    logits = 2 * setting.draw(setting.N, classes, seed=seed)
    embedding = setting.draw(setting.N, width, seed=seed + 100)
    return setting.outputs(logits, embedding=embedding)
