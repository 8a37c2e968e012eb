"""Targets computed ahead of time: what is kept of a teacher, and how it is read."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.core.numerics import tempered_log_softmax
from kdjax.core.types import Array, Output, PyTree, Targets, Teacher, TopTargets, View

TAP = "tap "


def keep(
    output: Output,
    *,
    top_k: int = 0,
    temperature: float = 1.0,
    taps: Sequence[str] = (),
) -> dict[str, Array]:
    """What a store keeps of a teacher's answer, by name, one row an example.

    top_k: 0 keeps the logits as they are, in float32: 4 bytes a class. K keeps the K
        likeliest classes as log-probabilities (float16) with their indices (uint16,
        uint32 above 65 536 classes) and the log-normaliser (float32): 4 + 4 K bytes.
    temperature: the one that the log-normaliser is for.
    taps: names of activations that are kept too, in float32.

    Raises ValueError naming a tap that is not there, or a `top_k` above the classes.
    """
    classes = output.logits.shape[-1]
    if not 0 <= top_k <= classes:
        raise ValueError(f"top_k: expected 0 to {classes} classes, got {top_k}")
    kept = {
        TAP + name: tap.astype(jnp.float32)
        for name, tap in with_taps(output, taps).taps.items()
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
        "log_normaliser": normalizer,
        **kept,
    }


def with_taps(output: Output, taps: Sequence[str]) -> Output:
    """The same answer with these taps alone; ValueError names one that is not there."""
    for name in taps:
        if name not in output.taps:
            known = sorted(output.taps)
            raise ValueError(f"taps: expected some of {known}, got {name!r}")
    return output._replace(taps={name: output.taps[name] for name in taps})


def unpack(
    rows: dict[str, Array], *, top_k: int = 0, temperature: float = 1.0
) -> Targets:
    """The inverse of `keep`, as far as something was kept.

    top_k: 0 takes all that is there. K takes the K likeliest classes, as if no more had
        been kept, at `temperature`; that of rows without logits is theirs already.
    """
    taps = {k.removeprefix(TAP): x for k, x in rows.items() if k.startswith(TAP)}
    if "logits" in rows:
        output = Output(rows["logits"], taps)
        if top_k == 0:
            return output
        rows = keep(output, top_k=top_k, temperature=temperature)
    likeliest = slice(top_k or None)
    return TopTargets(
        rows["log_probs"][..., likeliest].astype(jnp.float32),
        rows["indices"][..., likeliest].astype(jnp.int32),
        rows["log_normaliser"],
        taps,
    )


def replayed(**options: Any) -> Teacher:
    """Targets of the very views that are replayed for the student.

    They come with each batch, as `batch["rows"]["targets"]`; options: of `unpack`.
    """

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Targets:
        return unpack(batch["rows"]["targets"], **options)

    return Teacher(targets)


def fixed(**options: Any) -> Teacher:
    """One answer for each example, whatever view of it the student sees.

    They stay on the device, as `constants["targets"]`, in the order of the examples;
    options: of `unpack`.
    """

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Targets:
        rows = {k: x[batch["rows"]["index"]] for k, x in constants["targets"].items()}
        return unpack(rows, **options)

    return Teacher(targets)


def bytes_per_view(classes: int, top_k: int) -> int:
    """What one view costs on disk, taps and checksums aside."""
    return 4 * classes if top_k == 0 else 4 + (4 if classes <= 2**16 else 6) * top_k
