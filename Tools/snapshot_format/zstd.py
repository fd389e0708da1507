"""Zstandard frames through the system's libzstd (snapshot.md, zstd)."""

import ctypes
import ctypes.util

LARGEST_EXPANSION = 256


class LibraryMissing(Exception):
    pass


class FrameError(Exception):
    pass


_library = None


def _load():
    global _library
    if _library is not None:
        return _library
    names = ["libzstd.so.1", "libzstd.dylib", "/opt/homebrew/lib/libzstd.dylib", "/usr/local/lib/libzstd.dylib"]
    for name in names + [None]:
        name = name or ctypes.util.find_library("zstd")
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is None:
            continue
        size, pointer = ctypes.c_size_t, ctypes.c_char_p
        for function, result, arguments in (
            ("ZSTD_isError", ctypes.c_uint, [size]),
            ("ZSTD_compressBound", size, [size]),
            ("ZSTD_compress", size, [ctypes.c_void_p, size, pointer, size, ctypes.c_int]),
            ("ZSTD_decompress", size, [ctypes.c_void_p, size, pointer, size]),
            ("ZSTD_findFrameCompressedSize", size, [pointer, size]),
        ):
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments
        _library = library
        return library
    raise LibraryMissing("zstd frames need the zstd library (libzstd), which is not installed")


def _check_header(frame: bytes, length: int) -> None:
    """The rules that libzstd does not enforce by itself (RFC 8878, section 3.1.1.1)."""
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":
        raise FrameError("not a zstd frame")  # also refuses skippable frames
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    at = 5
    if not single_segment:
        at += 1  # the window: decoding at once into a buffer needs none
    dictionary_size = (0, 1, 2, 4)[descriptor & 3]
    if any(frame[at : at + dictionary_size]):
        raise FrameError("the frame asks for a dictionary")
    at += dictionary_size
    content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    if at + content_size > len(frame):
        raise FrameError("the frame header is cut off")
    if content_size:
        content = int.from_bytes(frame[at : at + content_size], "little") + (256 if content_size == 2 else 0)
        if content != length:
            raise FrameError(f"the frame holds {content} bytes, not {length}")


def may_expand(stored: int, length: int) -> bool:
    """Whether so many stored bytes may become so many."""
    return length <= LARGEST_EXPANSION * stored


def decompress(frame: bytes, length: int) -> bytes:
    """The `length` bytes of exactly one frame."""
    _check_header(frame, length)
    library = _load()
    size = library.ZSTD_findFrameCompressedSize(frame, len(frame))
    if library.ZSTD_isError(size):
        raise FrameError("the frame is damaged")
    if size != len(frame):
        raise FrameError(f"{len(frame) - size} bytes follow the frame")
    result = ctypes.create_string_buffer(max(length, 1))
    size = library.ZSTD_decompress(result, length, frame, len(frame))
    if library.ZSTD_isError(size):
        raise FrameError("the frame is damaged")
    if size != length:
        raise FrameError(f"the frame holds {size} bytes, not {length}")
    return result.raw[:length]


def compress(data: bytes, level: int = 3) -> bytes:
    library = _load()
    bound = library.ZSTD_compressBound(len(data))
    result = ctypes.create_string_buffer(bound)
    size = library.ZSTD_compress(result, bound, data, len(data), level)
    if library.ZSTD_isError(size):
        raise FrameError("compression failed")
    return result.raw[:size]
