"""Strategies of the literature against labels and Hinton's loss, one budget for all."""
