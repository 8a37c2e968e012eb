"""Teachers: (variables, view) -> Targets, with the gradient stopped here."""
