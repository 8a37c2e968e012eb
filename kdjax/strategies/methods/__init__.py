"""Strategies of the literature, a file each; `kdjax.strategies.registry` names them."""
