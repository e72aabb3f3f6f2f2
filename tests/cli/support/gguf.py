"""Writes small GGUF files that say what they are and hold nothing."""

import struct

UINT32, STRING, ARRAY = 4, 8, 9


def _string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value):
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(_string(item) for item in value)
    return struct.pack("<II", UINT32, value)


def gguf(metadata, version=3, tensors=0):
    """A GGUF file with these key-value pairs and `tensors` tensors of four numbers each."""
    data = b"GGUF" + struct.pack("<IQQ", version, tensors, len(metadata))
    for key, value in metadata.items():
        data += _string(key) + _value(value)
    for index in range(tensors):
        data += _string(f"tensor.{index}") + struct.pack("<IQIQ", 1, 4, 0, 32 * index)
    if tensors:
        data += b"\0" * (-len(data) % 32) + b"\0" * 32 * tensors
    return data
