"""Runs any strategy: state, sharding, step, checkpoints, evaluation, loop."""
