"""Writing safetensors files: u64 header length, JSON header, tensors without gaps."""

import json
import struct
from typing import NamedTuple


class Tensor(NamedTuple):
    name: str
    dtype: str
    shape: list
    size: int  # bytes


def write(path: str, tensors: list, metadata: dict, pieces) -> None:
    """`pieces` yields the bytes of the tensors in order, cut anywhere."""
    header = {}
    if metadata:
        header["__metadata__"] = metadata
    end = 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.size]}
        end += tensor.size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for piece in pieces:
            file.write(piece)
            end -= len(piece)
    assert end == 0, "the tensors' bytes do not match their shapes"
