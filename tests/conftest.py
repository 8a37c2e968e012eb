"""One strict session: 8 faked CPU devices, no silent broadcasting of ranks."""

import os
import pathlib
import re

# Before the first JAX operation, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
_cache = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Compile the gate's programs without XLA's optimizer and fusion emitters.

    Compiling is most of the gate, and takes half of the time so. The full tier compiles
    as a run does.
    """
    if "not full" in config.getoption("markexpr"):
        jax.config.update("jax_disable_most_optimizations", True)
        # Processes that tests start round as this one does.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        # Later releases have no such flag, and end at unknown ones.
        if jax.__version_info__ < (0, 11):
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"


# The laws of the gate hold masks, half precision and extremes for every loss, and
# numerical derivatives take many small programs. Values by hand stay in the gate.
_FULL = re.compile(r"differences|finite|half_precision|any_scale|masked|vmap|extremes")
_LOSSES = [pathlib.Path(__file__).parent / name for name in ("losses", "targets")]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests of single losses that wait for the full tier."""
    for item in items:
        if item.path.parent in _LOSSES and _FULL.search(item.name.partition("[")[0]):
            item.add_marker(pytest.mark.full)


_MAPS = pathlib.Path("/proc/self/maps")
_finished = 0


@pytest.fixture(autouse=True)
def few_programs():
    """Forget compiled programs before the kernel's limit of memory maps is reached.

    Each program on CPU takes about 27 of the 65 530 maps that Linux grants a process;
    the laws alone compile more programs than fit.
    """
    yield
    global _finished
    _finished += 1
    if _finished % 20 == 0 and _MAPS.exists():
        with open(_MAPS, "rb") as maps:
            count = sum(1 for _ in maps)
        if count > 25_000:
            jax.clear_caches()


@pytest.fixture
def float64():
    """Run one test in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_dtypes():
    """Forbid implicit dtype promotion (kernels only: optax and flax rely on it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def tiny_run(tmp_path):
    """A function making a small complete run; `changes` replace its fields."""
    import dataclasses

    from kdjax.config import Compute, ModelConfig, Optim, TrainFirst, Views
    from kdjax.presets import digits

    def make(**changes):
        optim = Optim(warmup=2)
        teacher = TrainFirst(
            ModelConfig("resnet", depth=8, width=4, resolution=8),
            steps=8,
            optim=optim,
            views=Views(mode="consistent", area=(0.5, 1.0), flip=False),
        )
        run = digits(
            name="tiny",
            workdir=str(tmp_path / "run"),
            seeds=1,
            model=ModelConfig("resnet", depth=8, width=2, resolution=8),
            teacher=teacher,
            optim=optim,
            baselines=(),
            steps=8,
            batch=16,
            evaluate_every=4,
            checkpoint_every=4,
            log_every=2,
            # The tests that are about several devices ask for them.
            compute=Compute(data=1),
        )
        return dataclasses.replace(run, **changes)

    return make
