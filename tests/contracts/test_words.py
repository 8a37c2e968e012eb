"""Words of the package: first lines of docstrings, names of modules, spelling."""

import ast
import collections
import functools
import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "kdjax"
QUESTION = re.compile(r"(What|Which|Whom|Whose|Who|Whether|Where|How|When)\b")
# Their docstrings are still to be rewritten.
PENDING = ("kdjax/data/content.py",)

# Stems, less a leading underscore and a plural s, of several modules, with the reason.
SHARED = {
    "check": "core checks arrays, config checks fields; neither imports the other",
    "entrie": "the loss registry: one module of this role in each room of losses",
    "memory": "core measures that of a process, data keeps images in it",
    "main": "`python -m kdjax` starts the command line",
    "registry": "one of losses, one of strategies: the same role in two rooms",
}

BRITISH = re.compile(
    r"colour|grey|centre|neighbour|behaviour|labelled|learnt|licence|favour|modelling"
    r"|(normali|optimi|quanti|standardi|initiali|regulari|generali|recogni|minimi"
    r"|maximi|seriali|synchroni|visuali|summari|organi|utili)s(e|er|ed|ing|ation)"
    r"(?![a-z])"
)
# Words of a private voice, with the terms of the field in CONTRIBUTING.
PRIVATE = re.compile(
    r"\b(both sides|the sides|a side is|knobs?|players?|ask(s|ed)?|answer(s|ed)?|told"
    r"|knows?|seen|likeliest|made-up|handed over|beneath|mend(s|ed)?)\b",
    re.IGNORECASE,
)


def first_lines(text):
    """(line number, first line) of all docstrings, those of attributes included."""
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                if isinstance(value.value, str) and value.value.strip():
                    yield statement.lineno, value.value.strip().splitlines()[0]


def identifiers(text):
    """All names that a module defines, binds, reads or passes by keyword."""
    fields = ("id", "arg", "attr", "name", "asname")
    names = set()
    for node in ast.walk(ast.parse(text)):
        names |= {getattr(node, field, None) for field in fields}
    return {name for name in names if isinstance(name, str)}


def repeated_stems(paths):
    """{stem: paths} of modules whose names differ in an underscore or plural alone.

    Strategies have the name of their method, as the losses of that method do.
    """
    stems = collections.defaultdict(list)
    for path in map(pathlib.PurePath, paths):
        if path.stem != "__init__" and path.parent.name != "methods":
            stems[path.stem.strip("_").removesuffix("s")].append(str(path))
    return {k: names for k, names in stems.items() if len(names) > 1}


@functools.cache
def modules():
    """{path in the repository: text} of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {str(file.relative_to(ROOT)): file.read_text() for file in files}


def test_no_docstring_begins_with_a_question_word():
    lines = [
        f"{path}:{number}: {line}"
        for path, text in modules().items()
        for number, line in first_lines(text)
        if QUESTION.match(line)
    ]
    assert not lines, "\n".join(lines)


def prose(text):
    """(line number, text) of all comments and docstrings."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        quoted = token.type == tokenize.STRING and '"""' in token.string
        if token.type == tokenize.COMMENT or quoted:
            yield token.start[0], token.string


def test_comments_and_docstrings_have_the_words_of_the_field():
    found = [
        f"{path}:{number}: {match[0]}"
        for path, text in modules().items()
        for number, words in prose(text)
        for match in PRIVATE.finditer(words)
    ]
    assert not found, "\n".join(found)


def test_private_words_are_found():
    text = 'x = 1  # what was asked\ny = "knobs"\n"""Of both sides."""\n'
    lines = [number for number, words in prose(text) if PRIVATE.search(words)]
    assert lines == [1, 3]


def test_no_two_modules_share_a_stem():
    stems = repeated_stems(modules())
    assert not {stem: paths for stem, paths in stems.items() if stem not in SHARED}


def test_identifiers_are_in_american_spelling():
    names = {
        f"{path}: {name}"
        for path, text in modules().items()
        for name in identifiers(text)
        if BRITISH.search(name.lower())
    }
    assert not names, "\n".join(sorted(names))


@pytest.mark.parametrize(
    "text",
    [
        '"""What a run is."""',
        'def f():\n    """Whether it is so."""',
        'class A:\n    """A."""\n\n    x: int\n    """How many there are."""',
    ],
)
def test_question_words_are_found(text):
    assert any(QUESTION.match(line) for _, line in first_lines(text))


def test_other_first_lines_pass():
    lines = [line for _, line in first_lines('"""Whole images, however large."""')]
    assert lines and not any(QUESTION.match(line) for line in lines)


def test_stems_and_spellings_are_found():
    paths = ["a/source.py", "b/_sources.py", "a/__init__.py", "b/__init__.py", "a/x.py"]
    assert repeated_stems(paths) == {"source": ["a/source.py", "b/_sources.py"]}
    text = "def normalise(grey): return f(colour=grey.centre)"
    british = {name for name in identifiers(text) if BRITISH.search(name)}
    assert british == {"normalise", "grey", "colour", "centre"}
    assert not BRITISH.search("promised_raised_noise")
