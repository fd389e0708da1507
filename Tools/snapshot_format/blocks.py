"""The bytes of a block: elements (full-precision.md) and codes (kivi.md)."""

from .elements import f16, f16_bits, f16_value, f32

LARGEST = 65504.0


FACTORS = {2: (0.9, 0.8, 0.7, 0.6), 4: (0.96, 0.92, 0.88, 0.84), 8: ()}  # of fitted ranges, by width


def quantize(values: list, coding):
    """Codes, scale and minimum of one group (kivi.md, Quantizing a group and Fitted ranges)."""
    low, high = min(values) or 0.0, max(values) or 0.0  # negative zero is taken as zero
    best = quantize_range(values, low, high, coding.width)
    if coding.ranges == 1:
        middle, half = f32(f32(low + high) / 2), f32(f32(high - low) / 2)
        least = squared_error(values, *best)
        for factor in FACTORS[coding.width]:
            reach = f32(f32(factor) * half)
            other = quantize_range(values, f32(middle - reach), f32(middle + reach), coding.width)
            error = squared_error(values, *other)
            if error < least:
                best, least = other, error
    return best


def quantize_range(values: list, low: float, high: float, width: int):
    """Codes, scale and minimum of one group by its range."""
    top = (1 << width) - 1
    scale = f16(f32(f32(high - low) / top))
    minimum = f16(low)
    r = f32(1 / scale) if scale else 0.0
    codes = [min(max(round(f32(f32(x - minimum) * r)), 0), top) for x in values]
    return codes, scale, minimum


def squared_error(values: list, codes: list, scale: float, minimum: float) -> float:
    """What a range loses, added up as kivi.md says."""
    sums = [0.0] * 16
    for i, (x, code) in enumerate(zip(values, codes)):
        error = f32(x - f32(f32(code * scale) + minimum))
        sums[i % 16] = f32(sums[i % 16] + f32(error * error))
    half = 8
    while half:
        sums = [f32(a + b) for a, b in zip(sums[:half], sums[half:])]
        half //= 2
    return sums[0]


def restore(code: int, scale: float, minimum: float) -> float:
    x = f32(f32(code * scale) + minimum)
    return x if x < LARGEST else LARGEST  # in this order NaN gives 65504 too


def key_code_place(channel: int, token: int, width: int, lines: int):
    """Byte and bit of the code of a run's i-th channel (kivi.md, Key codes)."""
    sub_block, t = divmod(token, 32)
    unit = 2 * (channel // 4) + t // 16
    line, place = divmod(unit, 8 // width)
    return (sub_block * lines + line) * 64 + t % 16 * 4 + channel % 4, place * width


def value_code_place(channel: int, token: int, width: int, s: int):
    """Byte and bit of the code of a value (kivi.md, Value codes)."""
    unit = token // 4 * s + channel // 16
    line, place = divmod(unit, 8 // width)
    return line * 64 + channel % 16 * 4 + token % 4, place * width


def _put_f16(block: bytearray, at: int, x: float) -> None:
    block[at : at + 2] = f16_bits(x).to_bytes(2, "little")


def _get_f16(block, at: int) -> float:
    return f16_value(block[at] | block[at + 1] << 8)


def encode_block(keys: list, values: list, plan, layout, element_type) -> bytes:
    """Keys and values are bit patterns [token][channel] of one block."""
    g, d = len(keys), len(values[0])
    block = bytearray(layout.length)
    size, number_of = element_type.size, element_type.value
    for number, run in enumerate(plan.runs):
        start = layout.keys[number]
        for i, channel in enumerate(run.channels):
            column = [row[channel] for row in keys]
            if not run.coding.width:
                at = start + i * g * size
                block[at : at + g * size] = element_type.pack(column)
                continue
            codes, scale, minimum = quantize([number_of(x) for x in column], run.coding)
            for token, code in enumerate(codes):
                byte, bit = key_code_place(i, token, run.coding.width, run.lines())
                block[start + byte] |= code << bit
            _put_f16(block, layout.scales[number] + 2 * i, scale)
            _put_f16(block, layout.minima[number] + 2 * i, minimum)
    if not plan.values.width:
        data = b"".join(map(element_type.pack, values))
        block[layout.values : layout.values + len(data)] = data
        return bytes(block)
    for token, row in enumerate(values):
        for group in range(layout.groups):
            first = group * g
            codes, scale, minimum = quantize([number_of(x) for x in row[first : first + g]], plan.values)
            for channel, code in enumerate(codes, first):
                byte, bit = value_code_place(channel, token, plan.values.width, -(-d // 16))
                block[layout.values + byte] |= code << bit
            at = 2 * ((token // 4 * layout.groups + group) * 4 + token % 4)
            _put_f16(block, layout.value_scales + at, scale)
            _put_f16(block, layout.value_minima + at, minimum)
    return bytes(block)


def decode_block(block, plan, layout, element_type, g: int, key_dimension: int, d: int):
    """Bit patterns [token][channel] of keys and values of one block; d is the value dimension."""
    size, bits_of = element_type.size, element_type.bits
    keys = [[0] * key_dimension for _ in range(g)]
    if plan.means:
        pruned = sorted(set(range(key_dimension)) - set(plan.kept()))
        for channel, mean in zip(pruned, plan.means):
            for row in keys:
                row[channel] = bits_of(mean)
    for number, run in enumerate(plan.runs):
        start = layout.keys[number]
        mask = (1 << run.coding.width) - 1
        for i, channel in enumerate(run.channels):
            if not run.coding.width:
                at = start + i * g * size
                column = element_type.unpack(block[at : at + g * size])
            else:
                scale = _get_f16(block, layout.scales[number] + 2 * i)
                minimum = _get_f16(block, layout.minima[number] + 2 * i)
                column = []
                for token in range(g):
                    byte, bit = key_code_place(i, token, run.coding.width, run.lines())
                    column.append(bits_of(restore(block[start + byte] >> bit & mask, scale, minimum)))
            for row, x in zip(keys, column):
                row[channel] = x
    if not plan.values.width:
        row_size = d * size
        starts = [layout.values + token * row_size for token in range(g)]
        return keys, [element_type.unpack(block[at : at + row_size]) for at in starts]
    mask = (1 << plan.values.width) - 1
    values = []
    for token in range(g):
        row = []
        for group in range(layout.groups):
            at = 2 * ((token // 4 * layout.groups + group) * 4 + token % 4)
            scale = _get_f16(block, layout.value_scales + at)
            minimum = _get_f16(block, layout.value_minima + at)
            for channel in range(group * g, min(group * g + g, d)):
                byte, bit = value_code_place(channel, token, plan.values.width, -(-d // 16))
                row.append(bits_of(restore(block[layout.values + byte] >> bit & mask, scale, minimum)))
        values.append(row)
    return keys, values
