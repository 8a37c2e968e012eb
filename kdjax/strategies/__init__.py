"""Strategies: how the players of a run are taught."""
