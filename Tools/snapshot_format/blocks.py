"""The bytes of a block: elements (full-precision.md) and codes (kivi.md)."""

import math

from .elements import f16_bits, f16_value, f32
from .plan import ComponentHead, lines, plane_lines, planes, value_units

LARGEST = 65504.0


FACTORS = {  # of fitted ranges, by width
    1: (0.56, 0.48, 0.40, 0.33),
    2: (1, 0.9, 0.8, 0.7, 0.6),
    3: (1, 0.94, 0.88, 0.82, 0.76),
    4: (1, 0.96, 0.92, 0.88, 0.84),
    5: (1, 0.97, 0.94),
    8: (1,),
}


def _hexadecimal(text: str) -> tuple:
    return tuple(map(float.fromhex, text.split()))


# Compact scales between two powers of two, and where rounding to the next of them begins.
SCALES = _hexadecimal("0x1p0 0x1.172b84p0 0x1.306fep0 0x1.4bfdaep0 0x1.6a09e6p0 0x1.8ace54p0 0x1.ae89fap0 0x1.d5818ep0")
BOUNDS = _hexadecimal(
    "0x1.0b5586p0 0x1.2387a6p0 0x1.3dea64p0 0x1.5ab07ep0 0x1.7a1148p0 0x1.9c4918p0 0x1.c199bep0 0x1.ea4afap0"
)


def clamp(x, low, high):
    return min(max(x, low), high)


def clamp_number(x: float) -> float:
    return clamp(x, -LARGEST, LARGEST)


def quantize(values: list, coding):
    """Codes of one group, and its scale and minimum as they are stored (kivi.md, Quantizing a group)."""
    low, high = min(values) or 0.0, max(values) or 0.0  # negative zero is taken as zero
    if coding.ranges == 1:
        low, high = fitted_range(values, low, high, coding)
    stored = stored_range(low, high, coding)
    scale, minimum = scale_and_minimum(*stored, coding)
    r = reciprocal(scale)
    top = (1 << coding.width) - 1
    return [clamp(round(f32(f32(x - minimum) * r)), 0, top) for x in values], *stored


def reciprocal(scale: float) -> float:
    return f32(1 / scale) if scale else 0.0


def stored_range(low: float, high: float, coding):
    """What a block has of a range: the bits of scale and minimum, or e and k."""
    scale = f32(f32(high - low) / ((1 << coding.width) - 1))
    if not coding.compact:
        return f16_bits(scale), f16_bits(low)
    middle = f32(f32(low + high) / 2)
    e = compact_number(max(scale, f32(abs(middle) * f32(16 / 127))))
    if 0 < e < 255 and f32(abs(middle) * 16) > f32(127 * compact_scale(e)):
        e += 1
    k = clamp(round(f32(f32(middle * reciprocal(compact_scale(e))) * 16)), -127, 127)
    return e, k & 255


def compact_number(scale: float) -> int:
    """The e of the compact scale nearest to a scale."""
    if not scale:
        return 0
    m, exponent = math.frexp(scale)  # 0.5 <= m < 1
    return clamp(8 * (exponent - 1 + 16) + sum(2 * m >= bound for bound in BOUNDS), 0, 255)


def compact_scale(e: int) -> float:
    return math.ldexp(SCALES[e % 8], e // 8 - 16) if e else 0.0


def scale_and_minimum(first: int, second: int, coding):
    """Of what a block has of a range."""
    if not coding.compact:
        return f16_value(first), f16_value(second)
    scale = compact_scale(first)
    k = second - 256 if second > 127 else second
    return scale, f32((k / 16 - ((1 << coding.width) - 1) / 2) * scale)


def fitted_range(values: list, low: float, high: float, coding):
    """The range of least squared error (kivi.md, Fitted ranges)."""
    middle, half = f32(f32(low + high) / 2), f32(f32(high - low) / 2)
    ranges = []
    for factor in FACTORS[coding.width]:
        reach = f32(f32(factor) * half)
        ranges.append((low, high) if factor == 1 else (f32(middle - reach), f32(middle + reach)))
    unit = f32(2047 / half) if half else math.inf
    if not math.isfinite(unit):
        return ranges[0]
    numbers = [clamp(round(f32(f32(x - middle) * unit)), -2047, 2047) for x in values]
    errors = [squared_error(numbers, middle, unit, *ends, coding) for ends in ranges]
    return ranges[errors.index(min(errors))]


def squared_error(numbers: list, middle: float, unit: float, low: float, high: float, coding):
    """What a range loses, in squares of the unit; infinite for one that is passed over."""
    width = coding.width
    scale, minimum = scale_and_minimum(*stored_range(low, high, coding), coding)
    center = f32(f32(f32(minimum + f32(((1 << width) - 1) / 2 * scale)) - middle) * unit)
    step = f32(f32(scale * unit) / 2)
    if not (math.isfinite(center) and math.isfinite(step)):
        return math.inf
    center, step = round(center), round(step)
    if abs(center) > 1023 or step << width > 4095:
        return math.inf
    total = 0
    for x in numbers:
        error = abs(x - center)
        for j in reversed(range(width)):
            error = abs(error - (step << j))
        total += error * error
    return total


def restore(code: int, scale: float, minimum: float) -> float:
    x = f32(f32(code * scale) + minimum)
    return x if x < LARGEST else LARGEST  # in this order NaN gives 65504 too


def centered(x: float, mean: float) -> float:
    return clamp_number(f32(x - mean))


def uncentered(y: float, mean: float) -> float:
    return clamp_number(f32(y + mean))


def rotated(numbers: list) -> list:
    """Each block of channels times a Hadamard matrix (kivi.md, Rotated values)."""
    numbers, n = list(numbers), len(numbers) & -len(numbers)
    h = 1
    while h < n:
        for i in range(len(numbers)):
            if not i & h:
                a, b = numbers[i], numbers[i + h]
                numbers[i], numbers[i + h] = f32(a + b), f32(a - b)
        h *= 2
    factor = f32(1 / math.sqrt(n))
    return [f32(x * factor) for x in numbers]


def key_code_places(channel: int, token: int, run):
    """Where the code of a run's i-th channel lies (kivi.md, Key codes)."""
    sub_block, t = divmod(token, 32)
    unit = 2 * (channel // 4) + t // 16
    return code_places(sub_block, unit, t % 16 * 4 + channel % 4, run.units(), run.coding.width)


def value_code_places(channel: int, token: int, width: int, d: int):
    """Where the code of a value of d channels lies (kivi.md, Value codes)."""
    sub_block, t = divmod(token, 32)
    unit = t // 4 * -(-d // 16) + channel // 16
    return code_places(sub_block, unit, channel % 16 * 4 + t % 4, value_units(d), width)


def code_places(sub_block: int, unit: int, byte: int, units: int, width: int):
    """Byte, bit and width of a code's part in each plane (kivi.md, Lines)."""
    start = sub_block * lines(units, width)
    for plane in planes(width):
        line, place = divmod(unit, 8 // plane)
        yield (start + line) * 64 + byte, place * plane, plane
        start += plane_lines(units, plane)


def _put_code(block: bytearray, start: int, places, code: int) -> None:
    for byte, bit, width in places:
        block[start + byte] |= (code & (1 << width) - 1) << bit
        code >>= width


def _get_code(block, start: int, places) -> int:
    code = have = 0
    for byte, bit, width in places:
        code |= (block[start + byte] >> bit & (1 << width) - 1) << have
        have += width
    return code


def _put_range(block: bytearray, at: int, size: int, number: int) -> None:
    block[at : at + size] = number.to_bytes(size, "little")


def _get_range(block, scale_at: int, minimum_at: int, coding):
    size = coding.scale_size
    stored = [int.from_bytes(block[at : at + size], "little") for at in (scale_at, minimum_at)]
    return scale_and_minimum(*stored, coding)


def encode_block(keys: list, values: list, plan, layout, element_type) -> bytes:
    """Keys and values are bit patterns [token][channel] of one block."""
    if isinstance(plan, ComponentHead):
        return encode_components((keys, values), plan, layout, element_type)
    g, value_dimension = len(keys), len(values[0])
    kept_values = plan.kept_values(value_dimension)
    d = len(kept_values)
    values = [[row[channel] for channel in kept_values] for row in values]
    block = bytearray(layout.length)
    size, number_of = element_type.size, element_type.value
    means = dict(zip(plan.channels_of_means(len(keys[0])), plan.means))
    for number, run in enumerate(plan.runs):
        start, coding = layout.keys[number], run.coding
        for i, channel in enumerate(run.channels):
            column = [row[channel] for row in keys]
            if not coding.width:
                at = start + i * g * size
                block[at : at + g * size] = element_type.pack(column)
                continue
            numbers = [number_of(x) for x in column]
            if coding.compact:
                numbers = [centered(x, means[channel]) for x in numbers]
            codes, scale, minimum = quantize(numbers, coding)
            for token, code in enumerate(codes):
                _put_code(block, start, key_code_places(i, token, run), code)
            at = coding.scale_size * i
            _put_range(block, layout.scales[number] + at, coding.scale_size, scale)
            _put_range(block, layout.minima[number] + at, coding.scale_size, minimum)
    coding = plan.values
    if not coding.width:
        data = b"".join(map(element_type.pack, values))
        block[layout.values : layout.values + len(data)] = data
        return bytes(block)
    means = dict(zip(plan.channels_of_value_means(value_dimension), plan.value_means))
    for token, row in enumerate(values):
        numbers = [number_of(x) for x in row]
        if coding.compact:
            numbers = [f32(x - means[channel]) for x, channel in zip(numbers, kept_values)]
            numbers = [clamp_number(x) for x in (rotated(numbers) if coding.rotation else numbers)]
        for group in range(layout.groups):
            first = group * layout.group
            codes, scale, minimum = quantize(numbers[first : first + layout.group], coding)
            for channel, code in enumerate(codes, first):
                _put_code(block, layout.values, value_code_places(channel, token, coding.width, d), code)
            at = coding.scale_size * ((token // 4 * layout.groups + group) * 4 + token % 4)
            _put_range(block, layout.value_scales + at, coding.scale_size, scale)
            _put_range(block, layout.value_minima + at, coding.scale_size, minimum)
    return bytes(block)


def decode_block(block, plan, layout, element_type, g: int, key_dimension: int, value_dimension: int):
    """Bit patterns [token][channel] of keys and values of one block."""
    if isinstance(plan, ComponentHead):
        return decode_components(block, plan, layout, element_type, g)
    size, bits_of = element_type.size, element_type.bits
    keys = [[0] * key_dimension for _ in range(g)]
    means = dict(zip(plan.channels_of_means(key_dimension), plan.means))
    is_centered = bool(plan.compact_keys())
    for channel, mean in means.items():  # those of kept channels are overwritten below
        for row in keys:
            row[channel] = bits_of(clamp_number(mean) if is_centered else mean)
    for number, run in enumerate(plan.runs):
        start, coding = layout.keys[number], run.coding
        for i, channel in enumerate(run.channels):
            if not coding.width:
                at = start + i * g * size
                column = element_type.unpack(block[at : at + g * size])
            else:
                at = coding.scale_size * i
                stored = _get_range(block, layout.scales[number] + at, layout.minima[number] + at, coding)
                codes = [_get_code(block, start, key_code_places(i, token, run)) for token in range(g)]
                numbers = [restore(code, *stored) for code in codes]
                if coding.compact:
                    numbers = [uncentered(x, means[channel]) for x in numbers]
                column = map(bits_of, numbers)
            for row, x in zip(keys, column):
                row[channel] = x
    kept_values = plan.kept_values(value_dimension)
    means = dict(zip(plan.channels_of_value_means(value_dimension), plan.value_means))
    kept_means = [means.get(channel) for channel in kept_values]
    coding, d = plan.values, len(kept_values)

    def row_of(kept: list) -> list:
        """A row of all channels."""
        row = [0] * value_dimension
        for channel, mean in means.items():  # those of kept channels are overwritten below
            row[channel] = bits_of(clamp_number(mean) if coding.compact else mean)
        for channel, x in zip(kept_values, kept):
            row[channel] = x
        return row

    if not coding.width:
        row_size = d * size
        starts = [layout.values + token * row_size for token in range(g)]
        return keys, [row_of(element_type.unpack(block[at : at + row_size])) for at in starts]
    values = []
    for token in range(g):
        numbers = []
        for group in range(layout.groups):
            at = coding.scale_size * ((token // 4 * layout.groups + group) * 4 + token % 4)
            stored = _get_range(block, layout.value_scales + at, layout.value_minima + at, coding)
            for channel in range(group * layout.group, min((group + 1) * layout.group, d)):
                code = _get_code(block, layout.values, value_code_places(channel, token, coding.width, d))
                numbers.append(restore(code, *stored))
        if coding.rotation:
            numbers = rotated(numbers)
        if coding.compact:
            numbers = [uncentered(x, mean) for x, mean in zip(numbers, kept_means)]
        values.append(row_of([bits_of(x) for x in numbers]))
    return keys, values


# Components (calibrated.md)


def product(rows: list, matrix: list) -> list:
    """Each row times the matrix: products are rounded, then their sums, in order from zero on."""
    result = []
    for row in rows:
        sums = [0.0] * len(matrix[0])
        for x, numbers in zip(row, matrix):
            sums = [f32(total + f32(x * number)) for total, number in zip(sums, numbers)]
        result.append(sums)
    return result


def turning_matrix(part) -> list:
    """[channel][component]: what turns channels into components."""
    scaled = [[f32(number * scale) for number in row] for row, scale in zip(part.matrix, part.scales)]
    inverse = [list(column) for column in zip(*scaled)]
    for _ in range(2):
        correction = product(inverse, product(scaled, inverse))
        inverse = [[f32(2 * x - y) for x, y in zip(*rows)] for rows in zip(inverse, correction)]
    return [[f32(x * weight) for x in row] for row, weight in zip(inverse, part.weights)]


def restoring_matrix(part) -> list:
    """[component][channel]: what restores channels."""
    return [
        [f32(f32(number * scale) / weight) for number, weight in zip(row, part.weights)]
        for row, scale in zip(part.matrix, part.scales)
    ]


def component_places(index: int, token: int, run, of_values: bool):
    """Where the code of a run's component lies (calibrated.md, Blocks)."""
    if not of_values:
        return key_code_places(index, token, run)
    sub_block, t = divmod(token, 32)
    byte = t % 16 // 4 * 16 + index % 4 * 4 + t % 4
    return code_places(sub_block, 2 * (index // 4) + t // 16, byte, run.units(), run.coding.width)


def encode_components(parts: tuple, plan, layout, element_type) -> bytes:
    block = bytearray(layout.length)
    for part, rows, runs, of_values in zip(plan, parts, layout.runs, (False, True)):
        if part is None:
            continue
        numbers = [[f32(element_type.value(x) - mean) for x, mean in zip(row, part.means)] for row in rows]
        components = [[clamp_number(y) for y in row] for row in product(numbers, turning_matrix(part))]
        for run, (codes_at, scales_at, minima_at) in runs:
            for i, component in enumerate(run.channels):
                codes, scale, minimum = quantize([row[component] for row in components], run.coding)
                for token, code in enumerate(codes):
                    _put_code(block, codes_at, component_places(i, token, run, of_values), code)
                size = run.coding.scale_size
                _put_range(block, scales_at + size * i, size, scale)
                _put_range(block, minima_at + size * i, size, minimum)
    return bytes(block)


def decode_components(block, plan, layout, element_type, g: int):
    result = []
    for part, runs, of_values in zip(plan, layout.runs, (False, True)):
        if part is None:
            result.append([[] for _ in range(g)])
            continue
        components = [[0.0] * len(part.scales) for _ in range(g)]
        for run, (codes_at, scales_at, minima_at) in runs:
            for i, component in enumerate(run.channels):
                size = run.coding.scale_size
                stored = _get_range(block, scales_at + size * i, minima_at + size * i, run.coding)
                for token in range(g):
                    code = _get_code(block, codes_at, component_places(i, token, run, of_values))
                    components[token][component] = restore(code, *stored)
        rows = product(components, restoring_matrix(part))
        result.append([[element_type.bits(uncentered(x, mean)) for x, mean in zip(row, part.means)] for row in rows])
    return tuple(result)
