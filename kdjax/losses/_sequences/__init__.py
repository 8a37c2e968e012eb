"""Losses of transformers and sequences."""
