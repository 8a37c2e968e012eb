"""Teachers: `(variables, view) -> Targets`, without a gradient."""
