"""Networks, and adapters that turn any network into two pure functions.

Every model returns its logits and its taps, named activations that feature losses read.
"""

from kdjax.models.adapters import (
    from_function,
    from_host,
    from_linen,
    from_stateful,
)
from kdjax.models.nnx_adapter import from_nnx
from kdjax.models.projectors import PROJECTORS, Projector, make_projector
from kdjax.models.resnet_cifar import ResNetCifar
from kdjax.models.zoo import MODELS, count_parameters, make_model

__all__ = [
    "MODELS",
    "PROJECTORS",
    "Projector",
    "ResNetCifar",
    "count_parameters",
    "from_function",
    "from_host",
    "from_linen",
    "from_nnx",
    "from_stateful",
    "make_projector",
    "make_model",
]
