"""Pages of one table, to which each command adds its rows."""

import pathlib
from collections.abc import Sequence

from kdjax.core.environment import machine


def add_rows(
    file: pathlib.Path, title: str, about: str, heads: Sequence[str], rows: list[str]
) -> None:
    """Add rows to a page, which is begun where there is none.

    Args:
      file: the page, in Markdown.
      title: its heading.
      about: the docstring of the experiment, its first line left out: the commands as
        an indented block, then what was done.
      heads: the first line of the table, and its rule.
      rows: of the table, in Markdown.
    """
    if not file.exists():
        _, *blocks = about.strip().split("\n\n")
        text = "\n\n".join(map(_unwrap, blocks))
        begin = [f"# {title}", text, f"- Machine: {machine()}", "\n".join(heads)]
        file.write_text("\n\n".join(begin) + "\n")
    with open(file, "a") as stream:
        stream.writelines(f"{row}\n" for row in rows)


def _unwrap(block: str) -> str:
    """A paragraph on one line; a block of commands as it is."""
    if block.startswith("    "):
        lines = (line.removeprefix("    ") for line in block.splitlines())
        return "\n".join(["```bash", *lines, "```"])
    return " ".join(block.split())
