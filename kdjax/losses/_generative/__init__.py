"""Losses of generators, critics and synthesized images."""
