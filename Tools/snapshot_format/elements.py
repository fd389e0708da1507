"""Element types and single-precision arithmetic (snapshot.md, Element types).

Elements are handled as bit patterns, so that NaN payloads survive, and turned into floats
only to compute. A Python float is binary64: one +, -, * or / of two binary32 numbers done
in it and then rounded gives the correctly rounded binary32 result, so `f32(a + b)` is one
step of single precision.
"""

import ctypes
import struct
from typing import NamedTuple


def f32(x: float) -> float:
    """x rounded to binary32, ties to even; infinite on overflow."""
    return ctypes.c_float(x).value


def f16_bits(x: float) -> int:
    """The bits of x rounded to binary16, ties to even; infinite on overflow."""
    try:
        return struct.unpack("<H", struct.pack("<e", x))[0]
    except OverflowError:  # struct refuses what rounds to infinity
        return 0x7C00 if x > 0 else 0xFC00


def f16_value(bits: int) -> float:
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def f32_bits(x: float) -> int:
    """The bits of x rounded to binary32; c_float rounds, where struct would refuse overflow."""
    return struct.unpack("=I", bytes(ctypes.c_float(x)))[0]


def f32_value(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def bf16_bits(x: float) -> int:
    bits = f32_bits(x)
    if x != x:
        return bits >> 16 | 0x40  # rounding could carry a NaN into infinity
    return bits + 0x7FFF + (bits >> 16 & 1) >> 16


def bf16_value(bits: int) -> float:
    return f32_value(bits << 16)


class ElementType(NamedTuple):
    number: int
    name: str
    size: int  # bytes
    code: str  # of struct, for bit patterns
    bits: object  # float -> bit pattern, to nearest even
    value: object  # bit pattern -> float

    @property
    def width(self) -> int:
        return 8 * self.size

    def pack(self, patterns) -> bytes:
        patterns = list(patterns)
        return struct.pack(f"<{len(patterns)}{self.code}", *patterns)

    def unpack(self, data) -> tuple:
        return struct.unpack(f"<{len(data) // self.size}{self.code}", data)


F16 = ElementType(1, "f16", 2, "H", f16_bits, f16_value)
BF16 = ElementType(2, "bf16", 2, "H", bf16_bits, bf16_value)
F32 = ElementType(3, "f32", 4, "I", f32_bits, f32_value)
ELEMENT_TYPES = {t.number: t for t in (F16, BF16, F32)}
