"""Stored targets: what is kept of a teacher's outputs, and how it is read back."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.cache.store import Store
from kdjax.config import Run, require
from kdjax.core.numerics import tempered_log_softmax
from kdjax.core.types import Array, Output, PyTree, Targets, Teacher, TopTargets, View

# Prefix of a tap's name in a store.
TAP = "tap "


def keep(
    output: Output,
    *,
    top_k: int = 0,
    temperature: float = 1.0,
    taps: Sequence[str] = (),
) -> dict[str, Array]:
    """The part of a teacher's output that a store keeps, `{name: [batch, ...]}`.

    top_k: 0 keeps the logits as they are, in float32: 4 bytes a class. K keeps the
        top-k classes as log-probabilities (float16) with their indices (uint16, uint32
        above 65 536 classes) and the log-normalizer (float32): 4 + 4 K bytes.
    temperature: the one that the log-normalizer is for.
    taps: names of activations that are kept too, in float32.

    Raises ConfigError naming `top_k` above the classes, or a tap that does not exist.
    """
    classes = output.logits.shape[-1]
    require(0 <= top_k <= classes, "top_k", f"0 to {classes} classes", top_k)
    kept = {
        TAP + name: tap.astype(jnp.float32)
        for name, tap in select_taps(output, taps).taps.items()
    }
    logits = output.logits.astype(jnp.float32)
    if top_k == 0:
        return {"logits": logits, **kept}
    log_probs = tempered_log_softmax(logits)
    top, indices = jax.lax.top_k(log_probs, top_k)
    normalizer = jax.nn.logsumexp(log_probs / temperature, axis=-1)
    return {
        "log_probs": top.astype(jnp.float16),
        "indices": indices.astype(jnp.uint16 if classes <= 2**16 else jnp.uint32),
        # Spelled as in the stores of the first release.
        "log_normaliser": normalizer,
        **kept,
    }


def select_taps(output: Output, taps: Sequence[str]) -> Output:
    """The same output with these taps alone; ConfigError names one that is missing."""
    for name in taps:
        require(name in output.taps, "taps", f"some of {sorted(output.taps)}", name)
    return output._replace(taps={name: output.taps[name] for name in taps})


def unpack(
    stored: dict[str, Array], *, top_k: int = 0, temperature: float = 1.0
) -> Targets:
    """The inverse of `keep`, up to what was kept.

    top_k: 0 takes all classes that are stored. K takes the top-k, as if no more had
        been kept.
    temperature: that of the log-normalizer where logits are stored; otherwise the
        stored log-normalizer already has one.
    """
    taps = {k.removeprefix(TAP): x for k, x in stored.items() if k.startswith(TAP)}
    if "logits" in stored:
        output = Output(stored["logits"], taps)
        if top_k == 0:
            return output
        stored = keep(output, top_k=top_k, temperature=temperature)
    top = slice(top_k or None)
    return TopTargets(
        stored["log_probs"][..., top].astype(jnp.float32),
        stored["indices"][..., top].astype(jnp.int32),
        stored["log_normaliser"],
        taps,
    )


def top_k_options(run: Run) -> dict[str, Any]:
    """`top_k` and `temperature` of a run, as `keep` and `unpack` take them; empty where
    it keeps all classes."""
    top_k = run.cache.top_k
    return {"top_k": top_k, "temperature": run.temperature} if top_k else {}


def replayed_teacher(**options: Any) -> Teacher:
    """A teacher whose targets were stored for exactly the views of each step.

    They come with each batch, as `batch["rows"]["targets"]`; options: of `unpack`.
    """

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Targets:
        return unpack(batch["rows"]["targets"], **options)

    return Teacher(targets)


def fixed_teacher(**options: Any) -> Teacher:
    """A teacher with one stored target per example, for every view of the student.

    They stay on the device, as `constants["targets"]`, in the order of the examples;
    options: of `unpack`.
    """

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Targets:
        indices = batch["rows"]["index"]
        stored = {k: x[indices] for k, x in constants["targets"].items()}
        return unpack(stored, **options)

    return Teacher(targets)


def is_fixed(store: Store) -> bool:
    """True where a store has a record per example, false where one per step."""
    return store.manifest["kind"] == "fixed"


def read_fixed(store: Store) -> tuple[dict[str, np.ndarray], int | None]:
    """All targets of a store of one record per example, and the axis of their seeds.

    `[examples, ...]`, or `[seeds, examples, ...]` where each seed has a teacher.
    """
    stored = store.read(slice(0, store.records))
    if all(x.shape[1] == 1 for x in stored.values()):
        return {k: x[:, 0] for k, x in stored.items()}, None
    return {k: np.moveaxis(x, 1, 0) for k, x in stored.items()}, 0


def blank_example(store: Store) -> dict[str, Array]:
    """Zeros of the shapes and dtypes of one example's stored targets, `[1, ...]`."""
    lead = 1 if is_fixed(store) else 2
    return {
        k: jnp.zeros((1, *column.shape[lead:]), column.dtype)
        for k, column in store.columns.items()
    }


def blank_step(store: Store) -> dict[str, Array]:
    """Zeros of the shapes and dtypes of one seed's targets in a step, `[batch, ...]`.

    store: of one record per step.
    """
    return {
        k: jnp.zeros(column.shape[1:], column.dtype)
        for k, column in store.columns.items()
    }


def bytes_per_view(classes: int, top_k: int) -> int:
    """Bytes of one view on disk, without taps and checksums."""
    return 4 * classes if top_k == 0 else 4 + (4 if classes <= 2**16 else 6) * top_k
