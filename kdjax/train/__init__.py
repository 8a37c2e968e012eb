"""Runs any strategy: state, sharding, step, checkpoints, evaluation, loop."""

from kdjax.train.optimizer import by_network as by_network
from kdjax.train.optimizer import make_optimizer as make_optimizer
from kdjax.train.optimizer import make_rates as make_rates
from kdjax.train.state import create_state as create_state
from kdjax.train.step import make_train_step as make_train_step
