"""CRC-32C (snapshot.md, Conventions)."""


def _table() -> list:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # 0x1EDC6F41 reflected
        table.append(byte)
    return table


_TABLE = _table()


def crc32c(data, earlier: int = 0) -> int:
    """The checksum of data, or, given that of earlier bytes, of those and data."""
    crc = earlier ^ 0xFFFFFFFF
    table = _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
