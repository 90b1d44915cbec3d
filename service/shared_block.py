"""Memory that two processes share, without a name that could be left behind.

A memory file lives as long as somebody has it open or mapped, so nothing has to be unlinked however
the processes end. `multiprocessing.shared_memory` gives every block a name, and a tracker that
removes it under processes that still use it (python/cpython#82300).
"""

import fcntl
import mmap
import os
from typing import Self


class SharedBlock:
    """Some zeroed bytes that whoever has the descriptor can map too.

    The memory is freed with the last view of `buffer`; there is nothing to close but `fd`.

    Args:
        fd: Of a memory file; closed with `close_descriptor`.
        size_bytes: Of it, more than 0.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        self.buffer = mmap.mmap(fd, size_bytes)

    @classmethod
    def create(cls, size_bytes: int) -> Self:
        """Return new memory, whose size nobody can change under the others."""
        fd = os.memfd_create("anytime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return cls(fd, size_bytes)
        except OSError:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> Self:
        """Map what another process created, and close the descriptor it was handed over by.

        Raises:
            OSError: It is no memory file whose size is sealed: reading it could kill the process.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            if not seals & fcntl.F_SEAL_SHRINK:
                raise OSError("the memory handed over may be cut short")
            block = cls(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
        block.fd = -1
        return block

    def close_descriptor(self) -> None:
        """Close the descriptor once it was handed over; the mapping stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
