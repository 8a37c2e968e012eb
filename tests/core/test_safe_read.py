"""Files with an end, and JSON whatever is in it."""

import os

import pytest

from kdjax.core import safe_read


def test_a_regular_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert safe_read.read_bytes(tmp_path / "link") == b"123"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_may_have_no_end_is_refused(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(OSError, match="Not a regular file"):
        safe_read.read_bytes(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "9" * 5_000, b"\xff", '{"a": 1} x']
)
def test_what_is_no_json_is_one_kind_of_error(text):
    with pytest.raises(ValueError):
        safe_read.parse_json(text)


def test_json():
    assert safe_read.parse_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
