"""Arrays, trees, keys and run folders; independent of distillation."""
