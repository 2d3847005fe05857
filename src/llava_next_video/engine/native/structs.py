"""What kernels are told of a network, as it lies in their memory."""

from __future__ import annotations

import ctypes

_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64


class WeightsStruct(ctypes.Structure):
    """`panels::Weights`."""

    _fields_ = (
        *((name, _POINTER) for name in ("groups", "scale", "bias", "start")),
        *((name, _LONG) for name in ("out", "width", "deep", "zero_point")),
    )


class ProductStruct(ctypes.Structure):
    """`rows::Product`."""

    _fields_ = (
        ("weights", WeightsStruct),
        ("norm", _POINTER),
        ("offset", _POINTER),
        ("epsilon", ctypes.c_float),
        ("kind", ctypes.c_int32),
    )


class BehindStruct(ctypes.Structure):
    """`rows::Behind`."""

    _fields_ = (("out", ProductStruct), ("up", ProductStruct), ("down", ProductStruct))


class LayerStruct(ctypes.Structure):
    """`generate::Layer`."""

    _fields_ = (("heads", ProductStruct), ("behind", BehindStruct))


class DecoderStruct(ctypes.Structure):
    """`generate::Decoder`."""

    _fields_ = (
        ("layers", _POINTER),
        ("count", _LONG),
        ("head", ProductStruct),
        ("heads", _LONG),
        ("key_heads", _LONG),
        ("head_width", _LONG),
    )


STRUCTS = (WeightsStruct, ProductStruct, BehindStruct, LayerStruct, DecoderStruct)
"""In the order of `struct_bytes`."""
