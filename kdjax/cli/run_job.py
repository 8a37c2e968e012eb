"""Running a job of the command line: what goes wrong in a known way is one line."""

import os
import sys
import threading
import warnings
from collections.abc import Callable

from kdjax.cli.arguments import fail
from kdjax.config import ConfigError


def run_job(job: Callable) -> None:
    """Import JAX, and call a job with `kdjax.jobs`; exit with a status on an error."""
    from jax.errors import JaxRuntimeError

    from kdjax import jobs
    from kdjax.cache.store import StoreError
    from kdjax.core.compilation import cache_programs
    from kdjax.core.runlog import RunFolderError
    from kdjax.data.images import ImageError
    from kdjax.experiments import SweepError
    from kdjax.train.checkpoint import CheckpointError
    from kdjax.train.loop import Interrupted, NonFiniteError

    try:
        with cache_programs():
            job(jobs)
    except (ConfigError, RunFolderError, StoreError, ImageError) as error:
        fail(str(error))
    except (NonFiniteError, SweepError) as error:
        fail(str(error), 1)
    except CheckpointError as error:
        print(f"kdjax: {error}", file=sys.stderr, flush=True)
        # Orbax's threads may wait for ever for what could not be written.
        os._exit(1)
    except Interrupted as error:
        fail(str(error), 128 + error.number)
    except (JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(
            error
        ):
            raise
        line = (str(error).splitlines() or ["no memory left"])[0]
        advice = "a smaller --batch, --model.width or --model.resolution needs less"
        fail(f"out of memory ({line}); {advice}", 1)


def plain_warnings() -> None:
    """Print a warning on one line, without the place in the source."""
    warnings.formatwarning = lambda text, *_, **__: f"kdjax: warning: {text}\n"


def quiet() -> None:
    """Keep other libraries' information messages off the progress bar."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import logging

    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    # What fails in a thread of Orbax is raised again where it is waited for.
    threading.excepthook = lambda _: None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
