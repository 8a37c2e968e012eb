"""Distillation tables of slides on CIFAR-10, rebuilt."""
