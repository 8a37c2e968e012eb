"""Registry of the losses: one `Entry` a public name, and a search over them.

>>> from kdjax import losses
>>> losses.REGISTRY["dkd"].method
'Decoupled knowledge distillation (DKD)'
>>> [entry.name for entry in losses.find("ReviewKD")]
['review_kd']
"""

import re
from collections.abc import Iterable

from kdjax.losses._aliases import ALIASES
from kdjax.losses._dense._entries import ENTRIES as DENSE
from kdjax.losses._entry import Entry, entry
from kdjax.losses._features._entries import ENTRIES as FEATURES
from kdjax.losses._generative._entries import ENTRIES as GENERATIVE
from kdjax.losses._logits._entries import ENTRIES as LOGITS
from kdjax.losses._relations._entries import ENTRIES as RELATIONS
from kdjax.losses._sequences._entries import ENTRIES as SEQUENCES

_COMBINE = entry(
    "combine",
    "Weighted sum of the means of several losses",
    formula="named values per example and weights to `(total, parts)`",
    aliases="total loss, sum",
    goals="several losses",
)
ROOMS: dict[str, tuple[Entry, ...]] = {
    "logits": LOGITS,
    "features": FEATURES,
    "relations": RELATIONS,
    "sequences": SEQUENCES,
    "dense": DENSE,
    "generative": GENERATIVE,
    "all": (_COMBINE,),
}
REGISTRY: dict[str, Entry] = {
    entry.name: entry._replace(room=room)
    for room, entries in ROOMS.items()
    for entry in entries
}
RELATION: frozenset[str] = frozenset(e.name for e in REGISTRY.values() if e.relation)

# Words of a question that say nothing about a loss.
_FILLERS = frozenset("a an and by for from i in is loss of on or the to with".split())


def find(text: str) -> list[Entry]:
    """Entries by name, acronym, method, former name, paper or goal; best first.

    A name in any spelling ("ReviewKD", "review kd", "hierarchical_context") or the
    number of a paper ("2104.09044") finds what it names. Other texts find the entries
    that match most of their words; none if half of the words match nothing.

    Example:
        >>> [entry.name for entry in find("2104.09044")]
        ['review_kd']
        >>> find("match features of other width")[0].name
        'attention_transfer'
    """
    query = _compact(text)
    named = [e for e in REGISTRY.values() if query and query in _names(e)]
    if named:
        return sorted(named, key=lambda e: _compact(e.name) != query)
    meant = [
        e for e in REGISTRY.values() if query in {_compact(goal) for goal in e.goals}
    ]
    if meant:
        return meant
    words = set(_words(text)) - _FILLERS
    scores = {e.name: len(words & _vocabulary(e)) for e in REGISTRY.values()}
    best = max(scores.values())
    if 2 * best <= len(words):
        return []
    return [REGISTRY[name] for name, score in scores.items() if score == best]


def spellings() -> dict[str, str]:
    """Names, former names and other words for losses, each with the name of today."""
    table = {alias: e.name for e in REGISTRY.values() for alias in e.aliases}
    return {**table, **ALIASES, **{name: name for name in REGISTRY}}


def _names(entry: Entry) -> set[str]:
    """All compact spellings that name an entry."""
    former = [old for old, new in ALIASES.items() if new == entry.name]
    acronyms = re.findall(r"\(([^()]+)\)", entry.method)
    method = re.sub(r"\([^()]*\)", "", entry.method)
    spelled = [entry.name, *former, *entry.aliases, *_split(acronyms), method]
    return {_compact(x) for x in [*spelled, *_papers(entry)]}


def _papers(entry: Entry) -> list[str]:
    """arXiv ids and dois of the papers."""
    identifiers = re.findall(r"\d{4}\.\d{4,5}|10\.\d{4,}/[^\s,;)]+", entry.paper)
    return [*identifiers, *(f"arXiv {x}" for x in identifiers)]


def _split(texts: Iterable[str]) -> list[str]:
    return [part for text in texts for part in text.split(",")]


def _compact(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _words(text: str) -> list[str]:
    """Words in lower case, without the s of a plural."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return [w.removesuffix("s") if len(w) > 3 else w for w in words]


def _vocabulary(entry: Entry) -> set[str]:
    about = [entry.name, entry.method, entry.paper, entry.tap, *entry.aliases]
    return set(_words(" ".join([*about, *entry.goals])))
