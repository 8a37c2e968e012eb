"""Pages: examples run, commands parse, links lead somewhere, sentences are short."""

import ast
import contextlib
import io
import pathlib
import re
import shlex
import tomllib

import numpy as np
import pytest

from kdjax.cli import main as cli

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / ".github" / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        ROOT / "experiments" / "README.md",
        *(ROOT / "kdjax").rglob("README.md"),
    )
)
REFERENCE = re.compile(r"^\[[^\]]+\]: (\S+)$", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read(page):
    return (ROOT / page).read_text()


def blocks(text, *languages):
    return [code for language, code in FENCE.findall(text) if language in languages]


# Examples.


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text)]


def run_block(code, scope):
    """Execute statement by statement; a number in a comment behind a `print` is
    compared with what the statement prints. Returns how many were compared."""
    lines, compared = code.splitlines(), 0
    for node in ast.parse(code).body:
        statement = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(ast.Module([node], []), "<page>", "exec"), scope)
        comment = statement.splitlines()[-1].partition("  # ")[2]
        if numbers(comment) and statement.startswith("print"):
            np.testing.assert_allclose(
                numbers(out.getvalue()), numbers(comment), rtol=1e-5, atol=1e-6
            )
            compared += 1
    return compared


def write_files(page, folder):
    """Write the blocks of a page that begin with `# NAME.py` to files of that name."""
    for code in blocks(read(page), "python"):
        name = re.match(r"# (\w+\.py)\n", code)
        if name:
            (folder / name[1]).write_text(code)


WITH_PYTHON = [page for page in PAGES if blocks(read(page), "python")]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_examples_run(page, tmp_path, monkeypatch):
    """The Python blocks of a page, one after another in one namespace."""
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    scope = {"__name__": "page"}
    for code in blocks(read(page), "python"):
        run_block(code, scope)


def test_values_in_comments_are_compared():
    assert run_block("x = 2\nprint(x)  # 2.0\nprint(\n    x,\n)  # 2", {}) == 2
    with pytest.raises(AssertionError):
        run_block("print(2)  # 3", {})


def test_the_front_page_prints_values():
    assert sum(run_block(code, {}) for code in blocks(read("README.md"), "python")[:1])


def test_the_front_page_trains_your_model_on_your_data(tmp_path, monkeypatch):
    """Its two files, named on the command line as it says, for two steps."""
    write_files("README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    ours = re.findall(r"`kdjax distill (--\S+ my_[^`]+)`", read("README.md"))
    assert len(ours) == 2
    # By labels alone, without a teacher to compile.
    short = "--steps 2 --optim.warmup 1 --seeds 1 --views.mode fixed --workdir runs/a"
    cli.main(["train", *" ".join([*ours, short]).split()])
    assert (tmp_path / "runs" / "a" / "summary.json").is_file()


def test_your_own_loop_is_short():
    page = read("kdjax/train/README.md").split("## A loop of your own")[1]
    code = blocks(page, "python")[0]
    assert "for i in range" in code
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 25


# Commands.


def commands(text):
    """The `kdjax ...` lines of a page's shell blocks and of its inline code, as lists
    of words."""
    inline = re.findall(r"`(kdjax [^`]+)`", FENCE.sub("", text))
    text = "\n".join([*blocks(text, "", "sh", "bash", "console"), *inline])
    text = re.sub(r"^ *(run|test): .*$", "", text.replace("\\\n", " "), flags=re.M)
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(x, comments=True) for x in lines if x.startswith("kdjax ")]


WITH_COMMANDS = [page for page in PAGES if commands(read(page))]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_parse(page, tmp_path, monkeypatch, capsys):
    """Every command of a page exists, and so does every option. Training commands are
    parsed and checked as a whole, everything but the job itself."""
    write_files(page, tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_start", lambda job, *_: None)
    monkeypatch.setenv("COLUMNS", "200")
    for _, command, *arguments in commands(read(page)):
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0, command
        known = capsys.readouterr().out
        if command in ("train", "distill", "cache-targets"):
            if not {"--help", "--help-all"} & {*arguments}:
                cli.main([command, *arguments])
            continue
        for word in arguments:
            option = word.partition("=")[0]
            shown = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w.-])", known)
            assert not word.startswith("--") or shown, f"{command} {word}"


def test_a_wrong_command_is_found():
    text = "```\nkdjax distill \\\n    --steps 3  # three\n```"
    assert commands(text) == [["kdjax", "distill", "--steps", "3"]]


# Links.


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_exist(page):
    for file in re.findall(r"(?:experiments|tests|kdjax)/[\w/]+\.py", read(page)):
        assert (ROOT / file).is_file(), file
    text = FENCE.sub("", read(page))
    for target, anchor in re.findall(r"\]\(([^)\s#]*\.md)#([^)\s]+)\)", text):
        headings = re.findall(
            r"^#+ (.*)$", ((ROOT / page).parent / target).read_text(), re.M
        )
        slugs = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
        assert anchor in slugs, (target, anchor)
    inline = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    for target in (*inline, *REFERENCE.findall(text)):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


# Sentences and words.


def prose(text):
    """Paragraphs and list items without code, tables, headings and link targets.

    Inline code counts as one word.
    """
    text = FENCE.sub("\n", text)
    text = REFERENCE.sub("", text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"``?[^`]+``?", "CODE", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    kept, after_blank = [], True
    for line in text.splitlines():
        code = after_blank and line.startswith("    ") or (kept and kept[-1] is None)
        code = code and (line.startswith("    ") or not line.strip())
        if code:
            kept.append(None)
        elif line.startswith(("#", "|")):
            kept.append("")
        elif re.match(r"\s*([-*]|\d+\.) ", line):
            kept += ["", re.sub(r"^\s*([-*]|\d+\.) ", "", line)]
        else:
            kept.append(line)
        after_blank = not line.strip()
    joined = "\n".join(line or "" for line in kept)
    return [p for p in re.split(r"\n\s*\n", joined) if p.strip()]


def sentences(text):
    found = []
    for paragraph in prose(text):
        parts = re.split(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[A-Z0-9])", paragraph)
        found += [part.split() for part in parts]
    words = [[w for w in s if re.search(r"\w", w)] for s in found]
    return [s for s in words if s]


def lengths(text):
    return sorted(len(sentence) for sentence in sentences(text))


def too_long(text):
    """What is wrong with a page's sentences; empty if nothing."""
    counts = lengths(text)
    wrong = [" ".join(s) for s in sentences(text) if len(s) > 35]
    p90 = counts[int(0.9 * (len(counts) - 1))]
    return wrong + ([f"90th percentile: {p90} words"] if p90 >= 25 else [])


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page):
    assert not too_long(read(page))


def test_the_counter_counts():
    text = """# A heading of words that do not count

One two `a piece of code` four [five six](somewhere/far/away.md). Two words!

- An item of five words
- 2. item

| a | table |
|---|---|

    indented code is skipped

```python
code = "is skipped too"
```

![Skipped as well](figure.png)

It is 0.5 e.g. of i.e. one. End
"""
    assert [len(s) for s in sentences(text)] == [6, 2, 5, 2, 7, 1]
    assert lengths("word " * 40) == [40]
    assert too_long("Word " * 36)[0].startswith("Word")
    assert too_long("Word " * 30 + ".") == ["90th percentile: 30 words"]
    assert not too_long("Word " * 24)


WRONG = {
    "likeliest": "top-k",
    r"passes (over|through) the data": "epochs",
    r"go(es|ne)? round in": "cycles",
    r"([\d,]+|all|more|many|few|of|its|longer) updates": "steps",
    "updates (a|of) seed": "steps",
    "to the (last )?bit": "bitwise",
    "bit for bit": "bitwise",
    "made-up": "synthetic",
    "both sides": "student and teacher",
    "knobs?": "hyper-parameters, schedules",
    "players?": "networks",
    "misfits?": "mismatch",
    "ask(s|ed)?": "call, request",
    "answer(s|ed)?": "outputs, targets, predictions",
    "is told|are told|told": "prints, states",
    "knows": "records, contains",
    "sees?|seen": "receives, has",
    "mend(s|ed)?": "repair",
    "the sides": "student and teacher",
    "handed over": "passed",
    "beneath|put beside": "under, next to",
    "learnt": "learned",
    r"\w*(normali|optimi|standardi|quanti|initiali|synchroni|regulari)s(e|ed|es|ing|er"
    r"|ers|ation)": "-ize",
    "colou?rs?(?<!color)(?<!colors)": "color",
    "grey|behaviou?r(?<!behavior)|centre|licence|labelled|neighbour|distil": "American",
}


def wrong_words(text):
    text = re.sub(r"``?[^`]+``?", "CODE", FENCE.sub("", text))
    text = re.sub(r"\]\([^)]*\)|\]\[[^\]]*\]", "]", REFERENCE.sub("", text))
    found = [(re.search(rf"\b({w})\b", text, re.I), w) for w in WRONG]
    return [f"{hit[0]!r}: {WRONG[word]}" for hit, word in found if hit]


@pytest.mark.parametrize("page", PAGES)
def test_words_are_those_of_the_field(page):
    assert not wrong_words(read(page))


def test_the_word_list_bites():
    assert wrong_words("after 160 updates") == ["'160 updates': steps"]
    assert wrong_words("The teacher is asked.") == ["'asked': call, request"]
    assert wrong_words("a colour") == ["'colour': color"]
    assert not wrong_words("It updates the color; `knobs` is [code](normalise.py).")


# What a page repeats from elsewhere.


def claims(path):
    """`{claim: (numbers, verdict)}` of a report."""
    rows = [line.strip("| ").split(" | ") for line in path.read_text().splitlines()]
    rows = [row for row in rows if len(row) == 6 and "±" in row[2]]
    return {re.sub(r" \(so far: .*\)", "", r[0]): (r[2], r[5]) for r in rows}


def table():
    """The rows of the experiments' table that have reports: cells, then the reports of
    each scale by name."""
    page = read("experiments/README.md")
    paths = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", page, re.M))
    for line in page.splitlines():
        names = re.findall(r"\]\[([^\]]+)\]", line)
        if line.startswith("| ") and names:
            reports = {
                n.rpartition("-")[2]: ROOT / "experiments" / paths[n] for n in names
            }
            yield [cell.strip() for cell in line.strip("|").split("|")], reports


def test_the_table_of_claims_is_that_of_the_reports():
    compared = 0
    for (claim, digits, cifar, number, _), reports in table():
        if "±" not in number:
            continue
        rows = claims(reports["digits"]).items()
        named = [
            k for k, (n, v) in rows if n.startswith(number) and digits.startswith(v)
        ]
        assert named, (claim, number)
        if "cifar" in reports:
            verdicts = {
                v for k, (_, v) in claims(reports["cifar"]).items() if k in named
            }
            assert verdicts == {cifar.split()[0]}, (claim, cifar)
        compared += 1
    assert compared > 60


def test_no_reversed_claim_is_lost():
    listed = {
        (path, verdict)
        for (_, *verdicts, _, _), reports in table()
        for verdict, path in zip(verdicts, reports.values(), strict=False)
    }
    for path in (ROOT / "experiments").rglob("results/*/report.md"):
        for claim, (_, verdict) in claims(path).items():
            assert verdict != "reversed" or (path, verdict) in listed, (path, claim)


def test_the_front_page_is_short_and_has_the_two_commands():
    page = read("README.md")
    assert len(page.splitlines()) <= 150
    # `.ci/run` takes the second from here.
    assert re.findall(r"^(?:run|test): .*$", page, re.M) == [
        "run:  pip install -e . && kdjax distill",
        "test: pip install -e '.[test]' && .ci/check",
    ]


def test_the_rooms_are_those_that_are_checked():
    layers = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    expected = [line.replace("kdjax.", "") for line in layers[0]["layers"]]
    shown = blocks(read("kdjax/README.md"), "")[0].splitlines()
    assert [re.split(r"\s{2,}", line)[0] for line in shown] == expected


def test_no_path_of_one_machine():
    for page in PAGES:
        assert not re.search(r"/(tmp|home|root|Users)/", FENCE.sub("", read(page))), (
            page
        )
