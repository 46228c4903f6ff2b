"""Cache folder: where coinfer keeps what it may lose. Every part of the package asks here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from coinfer.errors import ConfigurationError

__all__ = ["VARIABLE", "cache_folder"]

VARIABLE = "COINFER_CACHE"
"""Environment variable that names another folder."""


def cache_folder() -> Path:
    """Return the folder; it need not be there.

    That is `$COINFER_CACHE`, or the user's folder for caches on this system. On Linux that is
    `$XDG_CACHE_HOME/coinfer`, or `~/.cache/coinfer` where the variable is not set, empty or not an
    absolute path: the XDG Base Directory Specification, version 0.8, says to ignore it then. Where
    the user has no home, it is a private folder among the temporary files.

    Raises:
        ConfigurationError: there is no home, and others may write that folder.
    """
    import platformdirs

    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    try:
        return platformdirs.user_cache_path("coinfer", appauthor=False, opinion=False)
    except RuntimeError:  # there is no home: neither a variable nor the system names one
        return _temporary()


def _temporary() -> Path:
    """Return a folder that only this user can write; one that somebody else made is not used."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"coinfer-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return folder  # nothing can be kept there, as in any folder that cannot be written
    if hasattr(os, "getuid") and (status.st_uid != user or status.st_mode & 0o022):
        raise ConfigurationError(
            f"you have no home folder, and {folder} may be written by others; name a folder for "
            f"the cache in {VARIABLE}"
        )
    return folder
