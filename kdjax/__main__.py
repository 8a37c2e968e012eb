"""`python -m kdjax` is the same as `kdjax`."""

from kdjax.cli.main import main

main()
