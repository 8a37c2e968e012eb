"""Arrays, trees, keys and run folders; knows nothing of distillation."""
