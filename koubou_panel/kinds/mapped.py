"""A file's bytes as memory of this process, without a descriptor that stays open: there may be thousands of them.

(`mmap.mmap` keeps one each; it can be told not to from Python 3.13 on.)
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from functools import cache
from typing import Any


def mapped(fd: int, size_bytes: int) -> memoryview:
    """The first bytes of a file: not read before they are looked at, and what is written there stays in this process.

    They are let go when nothing refers to the view, or to a part of it, any more.

    Raises:
        OSError: there is no room for it.
    """
    libc = _libc()
    flags = mmap.MAP_PRIVATE | _NO_RESERVE
    address = libc.mmap(None, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # Of few sizes, as each is a type of its own for good; none but the mapped part of it is handed out.
    owner = (ctypes.c_ubyte * (1 << size_bytes.bit_length())).from_address(address)
    # Not at the interpreter's end, where somebody may still look at it: the process's own does it.
    weakref.finalize(owner, libc.munmap, address, size_bytes).atexit = False
    return memoryview(owner).cast("B")[:size_bytes]


_FAILED = ctypes.c_void_p(-1).value
# Or Linux asks for as much memory and swap, lest every page be changed. (`mmap` has the name from Python 3.13 on.)
_NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x40 if sys.platform == "darwin" else 0x4000)


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
