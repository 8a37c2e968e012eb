"""The user's cache folder."""

import os
import pathlib


def user_cache() -> pathlib.Path:
    """`kdjax` in XDG_CACHE_HOME, by default in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification ignores relative paths.
    root = pathlib.Path(home) if os.path.isabs(home) else pathlib.Path.home() / ".cache"
    return root / "kdjax"
