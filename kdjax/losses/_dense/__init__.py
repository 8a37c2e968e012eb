"""Losses of detection, segmentation and optical flow."""
