"""Dependence of a traced program's outputs on its inputs."""

from collections.abc import Collection

from jax.extend import core


def find_dependences(program: core.ClosedJaxpr, outputs: Collection[int]) -> set[int]:
    """Indices of the inputs that some outputs of a program may depend on.

    Inner programs are not opened: each of their outputs counts as depending on all of
    their inputs. So the indices may be too many, and are never too few.

    Args:
      program: of `jax.make_jaxpr`.
      outputs: indices of its flattened outputs.
    """
    jaxpr = program.jaxpr

    def variables(atoms: Collection) -> set[core.Var]:
        return {x for x in atoms if isinstance(x, core.Var)}

    needed = variables([jaxpr.outvars[i] for i in outputs])
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            needed |= variables(equation.invars)
    return {i for i, x in enumerate(jaxpr.invars) if x in needed}
