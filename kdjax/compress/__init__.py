"""Smaller networks as pure functions of arrays; importing them needs only jax.

A quantizer is `quantize(x, ...) -> values` of the shape of `x`, with the gradient of
the full-precision copy, so that any loss can be taken at quantized weights or
activations:

    def loss(params):
        student = jax.tree.map(lambda x: bucket_quantize(x, levels=16), params)
        ...

BatchNorm's scales and biases are parameters too: leave them out of the map.

    affine_quantize, calibrated_range   integers with scale and zero point, by tensor or
                                        channel; the range from data, or learned
    bucket_quantize                     levels between the ends of each bucket of
                                        weights, rounded to the nearest or by chance
    codebook_quantize, codebook_points  the nearest of learned points; where these start
    binary_quantize, ternary_quantize   one size with a sign, or 0 as well
"""

from kdjax.compress.quantization import (
    affine_quantize,
    binary_quantize,
    bucket_quantize,
    calibrated_range,
    codebook_points,
    codebook_quantize,
    ternary_quantize,
)

__all__ = [
    "affine_quantize",
    "binary_quantize",
    "bucket_quantize",
    "calibrated_range",
    "codebook_points",
    "codebook_quantize",
    "ternary_quantize",
]
