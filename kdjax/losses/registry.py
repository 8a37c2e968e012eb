"""Registry of the losses: one `Entry` a public name, and a search over them.

>>> from kdjax import losses
>>> losses.REGISTRY["dkd"].method
'Decoupled knowledge distillation (DKD)'
>>> [entry.name for entry in losses.find("ReviewKD")]
['review_kd']
"""

import difflib
import re
from collections.abc import Collection, Iterable

from kdjax.losses._aliases import ALIASES
from kdjax.losses._dense._entries import ENTRIES as DENSE
from kdjax.losses._entry import Entry, entry
from kdjax.losses._features._entries import ENTRIES as FEATURES
from kdjax.losses._generative._entries import ENTRIES as GENERATIVE
from kdjax.losses._logits._entries import ENTRIES as LOGITS
from kdjax.losses._logits._method_entries import ENTRIES as LOGIT_METHODS
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
    "logits": LOGITS + LOGIT_METHODS,
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
_FILLERS = frozenset(
    "a an and are at between both by do for from have i in is it its learn learning "
    "loss losses match matching much my of on or some start than that the to together "
    "two use which whose with".split()
)
# Other words of a question, and the word that goals have for them.
_SYNONYMS: dict[str, str] = {
    word: goal
    for goal, words in {
        "other": "another any different differ differing distinct unequal",
        "same": "equal identical",
        "width": "channel dim dimension dimensionality",
        "map": "activation",
        "feature": "hint intermediate representation",
        "logit": "output prediction response",
        "relation": "relational similarity pairwise",
        "example": "sample instance image",
        "no": "without none free lack missing",
        "data": "dataset",
        "detection": "detector detect object",
        "segmentation": "segment segmenting",
        "classification": "classifier classify",
        "language": "llm text nlp",
        "projector": "adapter regressor connector",
        "several": "many multiple ensemble",
        "contrastive": "contrast",
        "transformer": "vit bert",
    }.items()
    for word in words.split()
}


def find(text: str) -> list[Entry]:
    """Entries by name, acronym, method, former name, paper or goal; best first.

    A name in any spelling ("ReviewKD", "review kd", "hierarchical_context") or the
    number of a paper ("2104.09044") finds what it names. Other texts find the entries
    with a goal that has all of their words, and else those that match most of them;
    none if half of the words match nothing. Common synonyms count as the same word.

    Example:
        >>> [entry.name for entry in find("2104.09044")]
        ['review_kd']
        >>> find("features whose widths differ")[0].name
        'attention_transfer'
    """
    query = _compact(text)
    named = [e for e in REGISTRY.values() if query and query in _names(e)]
    if named:
        return sorted(named, key=lambda e: _compact(e.name) != query)
    return find_goal(text)


def find_goal(text: str) -> list[Entry]:
    """Entries for a purpose in words; those with the very goal before all others."""
    words = _words(text)
    meant = [e for e in REGISTRY.values() if any(words == _words(g) for g in e.goals)]
    meant = meant or [
        e for e in REGISTRY.values() if any(words <= _words(goal) for goal in e.goals)
    ]
    if not words or meant:
        return meant if words else []
    scores = {e.name: len(words & _vocabulary(e)) for e in REGISTRY.values()}
    best = max(scores.values())
    if 2 * best <= len(words):
        return []
    return [REGISTRY[name] for name, score in scores.items() if score == best]


def goals() -> list[str]:
    """All goals of the losses, each once, in the order of the registry."""
    entries = [e for e in REGISTRY.values() if e.paper]
    return list(dict.fromkeys(goal for e in entries for goal in e.goals))


def nearest(text: str, names: Collection[str]) -> list[str]:
    """Up to three of the names of today that a text is near, in spelling or meaning.

    Former names, acronyms and methods lead to the name of today.

    Example:
        >>> nearest("ReviewKD", REGISTRY), nearest("decoupled_kdd", REGISTRY)
        (['review_kd'], ['dkd'])
    """
    words = spellings()
    close = difflib.get_close_matches(text.lower(), words, n=9, cutoff=0.7)
    exact = [e.name for e in REGISTRY.values() if _compact(text) in _names(e)]
    near = dict.fromkeys(exact or [words[word] for word in close])
    return [name for name in near if name in names][:3]


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


def _words(text: str) -> set[str]:
    """Words in lower case, without the s of a plural, fillers and synonyms."""
    words = [w for w in re.findall(r"[a-z0-9]+", text.lower()) if w not in _FILLERS]
    plain: list[str] = [w.removesuffix("s") if len(w) > 3 else w for w in words]
    return {_SYNONYMS.get(word, word) for word in plain}


def _vocabulary(entry: Entry) -> set[str]:
    about = [entry.name, entry.method, entry.paper, entry.tap, *entry.aliases]
    return _words(" ".join([*about, *entry.goals]))
