"""Losses between feature maps, and between input gradients."""
