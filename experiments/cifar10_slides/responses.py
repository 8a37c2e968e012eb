"""The variants of both tables on teacher outputs: `response_resnet`, `_plain`."""

import functools
import itertools

from experiments.cifar10_slides import slides
from kdjax.experiments import above

READINGS = ("soft", "hard")


def variants(pair: str) -> dict:
    """Labels, and every temperature with every alpha under both readings of it (0.5 is
    the same under both)."""
    table = {"labels": functools.partial(slides.labels, pair)}
    for reading, temperature, alpha in itertools.product(
        READINGS, slides.TEMPERATURES, slides.ALPHAS
    ):
        table[slides.row(temperature, alpha, reading)] = functools.partial(
            slides.response,
            pair,
            temperature=temperature,
            soft=slides.soft_weight(alpha, reading),
        )
    return table


def expected(own: str, scores: dict) -> tuple:
    """own: the slides' student alone; scores: by row, as the slides print them."""
    best, claims = (5, 0.2), []
    for reading in READINGS:
        say = f"(alpha weighs the {reading} term)"
        for key in slides.ROWS:
            name = slides.row(*key, reading)
            text = f"T={key[0]}, alpha={key[1]} above labels {say}"
            claims.append(
                above(text, name, "labels", paper=f"{scores[key]} against {own}")
            )
        for key in slides.ROWS:
            if key != best:
                text = f"T=5, alpha=0.2 above T={key[0]}, alpha={key[1]} {say}"
                paper = f"{scores[best]} against {scores[key]}"
                names = (slides.row(*k, reading) for k in (best, key))
                claims.append(above(text, *names, paper=paper))
    return tuple(claims)
