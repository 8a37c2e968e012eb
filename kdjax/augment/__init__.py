"""Keyed, pure image transforms that run on the device."""
