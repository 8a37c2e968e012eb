"""Claims of reviews and articles on distillation, each one experiment."""
