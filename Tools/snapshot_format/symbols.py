"""Tables of symbols, and symbols as bits (archive-coder.md)."""

import itertools
import math
import os
import struct
from typing import NamedTuple

from .elements import f32

FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LANES = 16
LEAST_STATE = 1 << 16
LIMIT = 31
ESCAPE = -32
PLACES = 4096


class Table(NamedTuple):
    frequencies: dict  # by symbol
    firsts: dict  # first place by symbol
    symbols: list  # by place


def _read_tables() -> list:
    tables = []
    with open(os.path.join(FOLDER, "Formats", "archive-tables.txt"), encoding="ascii") as file:
        for line in file:
            numbers = [int(word) for word in line.split()]
            names = [*range(-LIMIT, LIMIT + 1), ESCAPE]
            ends = list(itertools.accumulate(numbers))
            assert len(numbers) == 64 and ends[-1] == PLACES and numbers[63] > 0, "a table is damaged"
            tables.append(
                Table(
                    dict(zip(names, numbers)),
                    dict(zip(names, [0, *ends])),
                    [name for name, count in zip(names, numbers) for _ in range(count)],
                )
            )
    assert len(tables) == 56, "there are 56 tables"
    return tables


TABLES = _read_tables()


class CodingError(Exception):
    """Bytes that are no coded symbols."""


class Decoder:
    """Reads calls of symbols."""

    def __init__(self, states: bytes, words: bytes):
        self.states = list(struct.unpack(f"<{LANES}I", states))
        if min(self.states) < LEAST_STATE:
            raise CodingError("a state is below 2^16")
        self.words = iter(struct.unpack(f"<{len(words) // 2}H", words))

    def call(self, table: int, count: int) -> list:
        table = TABLES[table]
        symbols = []
        for j in range(count):
            state, place = divmod(self.states[j % LANES], PLACES)
            symbol = table.symbols[place]
            state = table.frequencies[symbol] * state + place - table.firsts[symbol]
            if state < LEAST_STATE:
                word = next(self.words, None)
                if word is None:
                    raise CodingError("a word is missing")
                state = state << 16 | word
            self.states[j % LANES] = state
            symbols.append(symbol)
        return symbols

    def finish(self) -> None:
        if next(self.words, None) is not None:
            raise CodingError("words are left")
        if any(state != LEAST_STATE for state in self.states):
            raise CodingError("a state is not 2^16 at the end")


def encode(calls: list):
    """The states and the words of calls, pairs of table and symbols."""
    states, words = [LEAST_STATE] * LANES, []
    for number, symbols in reversed(calls):
        table = TABLES[number]
        for j, symbol in reversed(list(enumerate(symbols))):
            frequency, first = table.frequencies[symbol], table.firsts[symbol]
            state = states[j % LANES]
            if state >= frequency << 20:
                words.append(state & 0xFFFF)
                state >>= 16
            states[j % LANES] = state // frequency * PLACES + state % frequency + first
    return struct.pack(f"<{LANES}I", *states), struct.pack(f"<{len(words)}H", *reversed(words))


def _floats(*texts: str) -> list:
    return [float.fromhex(text) for text in texts]


_PER_TURN, *_PARTS = _floats("0x1.45F306DC9C883p-1", "0x1.921FBp0", "0x1.5110Bp-22", "0x1.18469898CC517p-44")
_SINE = _floats(
    "0x1.5D93A5ACFD57Cp-33", "-0x1.AE5E68A2B9CEBp-26", "0x1.71DE357B1FE7Dp-19", "-0x1.A01A019C161D5p-13",
    "0x1.111111110F8A6p-7", "-0x1.5555555555549p-3",
)
_COSINE = _floats(
    "-0x1.8FAE9BE8838D4p-37", "0x1.1EE9EBDB4B1C4p-29", "-0x1.27E4F809C52ADp-22", "0x1.A01A019CB1590p-16",
    "-0x1.6C16C16C15177p-10", "0x1.555555555554Cp-5",
)
_ROUNDING = 1.5 * 2.0**52


def rotary_angle(position: int, frequency: float):
    """Cosine and sine of a position's angle (archive-coder.md, Rotary angles)."""
    angle = position * frequency
    n = (angle * _PER_TURN + _ROUNDING) - _ROUNDING
    r = ((angle - n * _PARTS[0]) - n * _PARTS[1]) - n * _PARTS[2]
    z = r * r
    s, c = _SINE[0], _COSINE[0]
    for factor in _SINE[1:]:
        s = s * z + factor
    for factor in _COSINE[1:]:
        c = c * z + factor
    s = (r * z) * s + r
    c = (z * z) * c + (1 - 0.5 * z)
    cosine, sine = ((c, s), (-s, c), (-c, -s), (s, -c))[math.floor(n) % 4]
    return f32(cosine), f32(sine)


def rotate(row: list, first: int, angles: list) -> None:
    """Turns the pairs of the channels from `first` on, in place."""
    pairs = len(angles)
    for i, (cosine, sine) in enumerate(angles, first):
        a, b = row[i], row[i + pairs]
        row[i] = f32(f32(a * cosine) - f32(b * sine))
        row[i + pairs] = f32(f32(b * cosine) + f32(a * sine))
