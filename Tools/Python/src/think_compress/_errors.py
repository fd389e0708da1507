"""What can go wrong: an exception for each status of the C library."""


class ThinkCompressError(Exception):
    """Anything that the library refuses or can't do. The message names the argument, or where in the cache or file."""


class InvalidArgument(ThinkCompressError, ValueError):
    """A shape, type, stride or number that doesn't fit, or something used after it was closed."""


class RecipeError(ThinkCompressError, ValueError):
    """Text that is no recipe. The message has the nearest right form."""


class Unsupported(ThinkCompressError):
    """The recipe can't compress this cache, such as one without queries, or no file can say it."""


class UnsupportedValue(ThinkCompressError, ValueError):
    """A number of a cache that is infinite, not a number, or too large to be quantized."""


class WholeOnly(ThinkCompressError):
    """The cache lacks tokens in some layer, so it can't be cut."""


class OutOfMemory(ThinkCompressError, MemoryError):
    """Memory that the system doesn't give."""


class Cancelled(ThinkCompressError):
    """The call was ended before it was done."""


class FileError(ThinkCompressError, OSError):
    """A file that can't be read or written."""


class FileExists(FileError, FileExistsError):
    """The file exists already and was not to be replaced."""


class FileNotFound(FileError, FileNotFoundError):
    """There is no such file, or no such folder to write to."""


class Damaged(ThinkCompressError):
    """The file is no snapshot, or damaged, or of another version."""


class NotFound(ThinkCompressError, LookupError):
    """The cache has no such thing, such as digests of token ids that it doesn't have."""


class OtherModel(ThinkCompressError, ValueError):
    """The file is of another model, or of caches of another shape or type."""


class InternalError(ThinkCompressError):
    """A fault of the library: please report it."""


BY_STATUS: dict[int, type[ThinkCompressError]] = {
    1: InvalidArgument,
    2: RecipeError,
    3: Unsupported,
    4: UnsupportedValue,
    5: WholeOnly,
    6: OutOfMemory,
    7: Cancelled,
    8: FileError,
    9: FileExists,
    10: Damaged,
    11: NotFound,
    12: InternalError,
    13: OtherModel,
    14: FileNotFound,
}
