"""Attention maps, hidden states, token sequences, sparse teachers, critics.

Not here, because not of the form (student, teacher): `sequence_nll`,
`linear_softmax_kl`, `adversarial_student`, `gradient_penalty`, the losses of
generators and images. They have tests of their own.
"""

import numpy as np

from tests.lawbook import Case


def _weights(x):
    """Attention weights of any scores: positive, with sum 1 along the keys."""
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_probabilities(x):
    """Logarithms of probabilities with the sum 0.8, of any scores."""
    x = np.asarray(x, np.float64)
    top = x.max(-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(-1, keepdims=True)) + np.log(0.8)


def _kept(rng, rows):
    """Three different classes out of five for every example."""
    return {"teacher_indices": np.argsort(rng.normal(size=(rows, 5)))[:, :3]}


def _kept_and_normalized(rng, rows):
    normalizer = 1 + np.abs(rng.normal(size=rows))
    return {**_kept(rng, rows), "teacher_log_normalizer": normalizer}


def _all_kept(rng, rows):
    return {"teacher_indices": np.tile(np.arange(3), (rows, 1))}


_MAP = (2, 3, 4)
_TOKENS = (3, 4)
_TOP = {"student": (5,), "teacher": (3,), "zero_if_equal": False, "mask": None}
_TOP["positive"] = _log_probabilities
_INDICES = ("teacher_indices",)
_BOTH = ("teacher_indices", "teacher_log_normalizer")


def _tail(name, arrays=_kept, rowwise=_INDICES, kernel="top_k_kl", **knobs):
    knobs = (("tail", name), *knobs.items())
    return Case(kernel, knobs=knobs, arrays=arrays, rowwise=rowwise, **_TOP)


CASES = [
    Case("attention_map_mse", _MAP),
    Case("attention_map_mse", _MAP, mask=2),
    Case("attention_map_mse", _MAP, knobs=(("heads", "mean"),)),
    Case("attention_map_kl", _MAP, positive=_weights),
    Case("attention_map_kl", _MAP, knobs=(("inputs", "scores"),)),
    Case("attention_map_kl", _MAP, knobs=(("heads", "mean"),), positive=_weights),
    Case("value_relation", _MAP, mask=2),
    Case("value_relation", _MAP, (2, 3, 5), mask=2),
    Case("hidden_state_mse", _MAP),
    Case("hidden_state_mse", _MAP, mask=2, knobs=(("variant", "pkd"),)),
    Case("hidden_state_mse", _MAP, (4, 3, 4), knobs=(("layers", (1, 3)),), mask=-1),
    Case("token_kl", _TOKENS, mask=1, knobs=(("temperature", 4.0),)),
    Case("token_kl", _TOKENS, knobs=(("direction", "reverse"),)),
    Case("token_kl", _TOKENS, mask=1, knobs=(("variant", "sequence"),)),
    Case("token_kl", _TOKENS, mask=1, knobs=(("variant", "sum"),)),
    Case("token_jsd", _TOKENS, mask=1),
    Case("token_jsd", _TOKENS, knobs=(("beta", 0.0), ("temperature", 2.0))),
    Case("token_jsd", _TOKENS, knobs=(("beta", 1.0),)),
    _tail("uniform"),
    _tail("uniform", _kept_and_normalized, _BOTH, temperature=2.0),
    _tail("bucket", _kept_and_normalized, _BOTH, temperature=2.0),
    _tail("renormalize", temperature=4.0),
    Case(
        "top_k_kl",
        arrays=_all_kept,
        rowwise=_INDICES,
        mask=None,
        positive=_log_probabilities,
    ),
    _tail("uniform", direction="reverse"),
    _tail(
        *("bucket", _kept_and_normalized, _BOTH), direction="reverse", temperature=2.0
    ),
    _tail("renormalize", direction="reverse"),
    _tail("uniform", kernel="top_k_jsd"),
    _tail("bucket", _kept_and_normalized, _BOTH, kernel="top_k_jsd", temperature=2.0),
    _tail("renormalize", kernel="top_k_jsd", beta=0.1),
    _tail("uniform", kernel="top_k_jsd", beta=1.0),
    Case("adversarial_critic", zero_if_equal=False),
    Case(
        "adversarial_critic", knobs=(("variant", "least_squares"),), zero_if_equal=False
    ),
    Case("adversarial_critic", knobs=(("variant", "hinge"),), zero_if_equal=False),
    # Equal scores cost nothing, but not because they are the best.
    Case(
        "adversarial_critic",
        teacher=(3,),
        knobs=(("variant", "wasserstein"),),
        nonnegative=False,
    ),
]
