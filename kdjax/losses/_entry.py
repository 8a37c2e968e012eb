"""One row of the registry of losses, and its recipe as a term of a run."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

# The taps of the networks that kdjax has by name; others are of a user's own network.
_BUILT_IN = re.compile(r"logits|labels|stem|embedding|(stage|block)\d+(_pre|_raw)?")


class Recipe(NamedTuple):
    """Fields of a term (`kdjax.config.Term`) with which a loss runs.

    student: taps of the student: those of the paper, as far as the networks of the
        preset have them, else names that stand for taps of a network of one's own.
    teacher: taps of the teacher, or "labels".
    projector: whether a trained linear map brings the student to the teacher's width.
    weight: the published weight, or one to start with; the lowest of a range.
    """

    student: tuple[str, ...] = ("logits",)
    teacher: tuple[str, ...] = ("logits",)
    projector: bool = False
    weight: float = 1.0

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Taps that no network of kdjax has, and that stand for taps of one's own."""
        taps = dict.fromkeys((*self.student, *self.teacher))
        return tuple(tap for tap in taps if not _BUILT_IN.fullmatch(tap))

    def fields(self, loss: str) -> dict[str, tuple[str, ...]]:
        """The fields of the term that differ from their defaults, as words."""
        words: dict[str, tuple[str, ...]] = {"loss": (loss,)}
        words["weight"] = (f"{self.weight:g}",)
        for network, taps in (("student", self.student), ("teacher", self.teacher)):
            if taps != ("logits",):
                words[network] = taps
        return words | ({"projector": ("True",)} if self.projector else {})

    def command(self, loss: str, name: str = "extra") -> str:
        """Options of `kdjax distill` that add a term of this name.

        Example:
            >>> recipe("stage2", weight=50).command("nst")
            '--terms.extra.loss nst --terms.extra.weight 50 --terms.extra.student \
stage2 --terms.extra.teacher stage2'
        """
        fields = self.fields(loss).items()
        return " ".join(f"--terms.{name}.{k} {' '.join(v)}" for k, v in fields)

    def python(self, loss: str) -> str:
        """The same term as an expression of Python, with names of `kdjax.config`."""
        fields = self.fields(loss)
        taps = {k: fields[k] for k in ("student", "teacher") if k in fields}
        texts = {k: repr(v[0] if len(v) == 1 else v) for k, v in taps.items()}
        texts = {"weight": f"{self.weight:g}"} | texts
        texts |= {"projector": "True"} if self.projector else {}
        options = ", ".join(f"{k}={v}" for k, v in texts.items())
        return f'Term("{loss}", {options})'.replace("'", '"')


def recipe(
    *taps: str, teacher: str = "", projector: bool = False, weight: float = 1.0
) -> Recipe:
    """A `Recipe` with the same taps of student and teacher unless `teacher` differs."""
    student: tuple[str, ...] = taps or ("logits",)
    return Recipe(student, (teacher,) if teacher else student, projector, weight)


class Entry(NamedTuple):
    """A public name of `kdjax.losses`: its method, its paper and its use.

    name: as in `kdjax.losses`.
    method: the method's long name, with its acronym.
    formula: what it computes; of a helper, what it is.
    aliases: other words that people search for.
    goals: what it is good for, in words.
    paper: authors or method, year and arXiv id or doi; empty for helpers.
    weight: the published weight, or None where our references have none.
    start: a weight to begin with where none is published; not a published number.
    tap: what to pass as student's and teacher's argument.
    invariances: changes of the arguments that leave the value as it is.
    needs: what it takes besides student and teacher ("labels", "several taps", ...).
    relation: whether values compare examples, and so mean the global batch.
    kernel: whether it has the family's form `(student, teacher, *, ...)`.
    term: a `Recipe` where a run can use it by name, since it needs nothing but taps,
        logits or labels; None for the others.
    room: what it compares: logits, features, relations, sequences, dense, generative.
    """

    name: str
    method: str
    formula: str
    aliases: tuple[str, ...] = ()
    goals: tuple[str, ...] = ()
    paper: str = ""
    weight: str | None = None
    start: str = ""
    tap: str = ""
    invariances: str = ""
    needs: tuple[str, ...] = ()
    relation: bool = False
    kernel: bool = False
    term: Recipe | None = None
    room: str = ""

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself (a class for `CRDMemory`)."""
        # When first used: the package imports its registry while it is imported.
        from kdjax import losses

        return getattr(losses, self.name)

    @property
    def missing(self) -> str:
        """The reason why it is no term of a run; empty for one that is."""
        if self.term:
            return ""
        if not self.paper:
            return f"{self.name} is a helper and no loss: {self.formula}"
        _, _, *more = inspect.signature(self.function).parameters.values()
        arguments = ", ".join(p.name for p in more if p.default is p.empty)
        needs = ", ".join(self.needs) or self.tap
        needs += f" ({arguments})" if self.needs else ""
        return (
            f"{self.name} is a loss, but no term can supply {needs}; call "
            f"kdjax.losses.{self.name} in a loss, a strategy or a loop of your own "
            "(kdjax/strategies/README.md)"
        )

    @property
    def year(self) -> int | None:
        """Year of publication, as far as the reference has one."""
        year = re.search(r"\b(19[5-9]\d|20[0-4]\d)\b", self.paper)
        arxiv = re.search(r"\b(\d\d)\d\d\.\d{4,5}\b", self.paper)
        if year:
            return int(year[1])
        return 2000 + int(arxiv[1]) if arxiv else None


def entry(name: str, method: str, **fields: Any) -> Entry:
    """An `Entry` whose lists are written with commas: `aliases="kd, hinton"`."""
    for key in ("aliases", "goals", "needs"):
        words = fields.get(key, "")
        fields[key] = tuple(x.strip() for x in words.split(",") if x.strip())
    return Entry(name, method, **fields)
