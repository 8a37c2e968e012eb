"""Functional knowledge distillation for JAX and Flax."""
