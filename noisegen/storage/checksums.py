"""Checksums of what is written, so that changed bytes are detected on reading.

CRC-32 finds what disks and copies do to a file: flipped bits, zeroed pages, other files' content.
It does not protect against someone who computes a new checksum.
"""

import json
import zlib
from typing import Any

import numpy as np


def of_array(array: np.ndarray) -> int:
    """Returns the CRC-32 of an array's dtype, shape and content."""
    array = np.asarray(array)
    kind = f"{array.dtype} {array.shape}".encode()
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(content, zlib.crc32(kind))


def of_json(content: Any) -> int:
    """Returns the CRC-32 of what JSON can hold; the order of names plays no part."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
