"""Writes small GGUF files that say what they are and hold nothing."""

import struct

UINT32, INT32, BOOL, STRING, ARRAY = 4, 5, 7, 8, 9
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
BLOCKS = {F32: (1, 4), F16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34)} # numbers, bytes


def _string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _list(items):
    if all(isinstance(item, bool) for item in items):
        return struct.pack("<IQ", BOOL, len(items)) + bytes(items)
    if all(isinstance(item, int) for item in items):
        return struct.pack(f"<IQ{len(items)}i", INT32, len(items), *items)
    return struct.pack("<IQ", STRING, len(items)) + b"".join(_string(item) for item in items)


def _value(value):
    if isinstance(value, bytes): # as it is, type included
        return value
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, list):
        return struct.pack("<I", ARRAY) + _list(value)
    return struct.pack("<II", UINT32, value)


def _tensor(name, sizes, kind, offset):
    return (_string(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes) + struct.pack("<IQ", kind, offset))


def tensor_bytes(sizes, kind):
    numbers, size = BLOCKS[kind]
    count = 1
    for one in sizes:
        count *= one
    return count // numbers * size


def gguf_header(metadata, tensors, version=3):
    """The header of a GGUF file with these tensors, as (name, sizes, kind), padded; and how much data follows it."""
    data = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        data += _string(key) + _value(value)
    offset = 0
    for name, sizes, kind in tensors:
        data += _tensor(name, sizes, kind, offset)
        offset += -(-tensor_bytes(sizes, kind) // 32) * 32
    return data + b"\0" * (-len(data) % 32), offset


def gguf(metadata, version=3, tensors=0):
    """A GGUF file with these key-value pairs and `tensors` tensors of four numbers each."""
    header, size = gguf_header(metadata, [(f"tensor.{index}", [4], F32) for index in range(tensors)], version)
    return header + b"\0" * size
