"""Functional knowledge distillation for JAX and Flax.

    from kdjax import losses          # pure loss kernels, needs nothing but jax
    import kdjax
    kdjax.distill(kdjax.presets.digits())   # the whole path, from a config
    kdjax.jobs.train(run)             # one model on labels

Names are imported when first used, so that `import kdjax.losses` loads only jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdjax import compress, config, experiments, jobs, losses, presets, targets
    from kdjax.augment import views
    from kdjax.config import Run
    from kdjax.jobs import cache_targets, distill, evaluate, load, report, show_views
    from kdjax.models import (
        from_function,
        from_host,
        from_linen,
        from_nnx,
        from_stateful,
        make_model,
    )
    from kdjax.train.step import make_train_step

_PLACES = {
    "Run": "kdjax.config",
    "distill": "kdjax.jobs",
    "evaluate": "kdjax.jobs",
    "report": "kdjax.jobs",
    "cache_targets": "kdjax.jobs",
    "load": "kdjax.jobs",
    "show_views": "kdjax.jobs",
    "make_train_step": "kdjax.train.step",
    "from_linen": "kdjax.models",
    "from_nnx": "kdjax.models",
    "from_function": "kdjax.models",
    "from_stateful": "kdjax.models",
    "from_host": "kdjax.models",
    "make_model": "kdjax.models",
}
_MODULES = {
    "compress": "kdjax.compress",
    "experiments": "kdjax.experiments",
    "losses": "kdjax.losses",
    "targets": "kdjax.targets",
    "views": "kdjax.augment.views",
    "jobs": "kdjax.jobs",
    "config": "kdjax.config",
    "presets": "kdjax.presets",
}

__all__ = [
    "Run",
    "cache_targets",
    "compress",
    "config",
    "distill",
    "evaluate",
    "experiments",
    "from_function",
    "from_host",
    "from_linen",
    "from_nnx",
    "from_stateful",
    "jobs",
    "load",
    "losses",
    "make_model",
    "make_train_step",
    "presets",
    "report",
    "show_views",
    "targets",
    "views",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'kdjax' has no attribute {name!r}")
