"""Computes checksums of written files, so that changed bytes are detected on reading.

CRC-32 detects accidental damage by disks and copies: flipped bits, zeroed pages, exchanged files.
It does not protect against deliberate changes, since anyone can compute a new checksum.
"""

import json
import zlib
from typing import Any

import numpy as np


def of_array(array: np.ndarray) -> int:
    """Returns the CRC-32 of an array's dtype, shape and content."""
    array = np.asarray(array)
    kind = f"{array.dtype} {array.shape}".encode()
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # Without a copy.
    return zlib.crc32(content, zlib.crc32(kind))


def of_json(content: Any) -> int:
    """Returns the CRC-32 of JSON content. The order of names is ignored."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
