"""What a disk may say, and how large files are that are read whole: what is larger is none of them, and no memory is
taken for it."""

from __future__ import annotations

import errno
from pathlib import Path

# What a disk says that is full, fails, is gone or is not ours, in whatever call of whatever library.
DISK_FAILURES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.EPERM}
)
LARGEST_RECORD = 2**25  # of one thing: a commit record of four views of 93 hours of video has 16 MB
LARGEST_JSON = 2**29  # of many things, whose content takes up to twenty times as much memory: Kinetics' has 100 MB
LARGEST_LIST = 2**32  # of many things, line by line: a manifest of 10 million videos has 1.5 GB


def within(size: int, most: int, path: Path) -> None:
    """Raises OSError for a file that is larger than any of its kind."""
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and no file of its kind has over {most:,}", str(path))
