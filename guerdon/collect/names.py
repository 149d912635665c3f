"""Names of people: how they are spelled, and when two are the same."""

from __future__ import annotations

import hashlib
import unicodedata

from guerdon.types import ConfigError


def valid_name(name: str) -> str:
    """A name in its one spelling. Raises ConfigError unless it is letters, digits, spaces and `. _ - @ + '`."""
    name = spelled(name)
    if not 1 <= len(name) <= 60 or not all(letter.isalnum() or letter in " ._-@+'" for letter in name):
        raise ConfigError("a name has 1 to 60 letters, digits, spaces or any of . _ - @ + '")
    return name


def spelled(name: str) -> str:
    """NFKC, with single spaces: the same text for what looks the same. PostgreSQL takes no NUL."""
    return " ".join(unicodedata.normalize("NFKC", name).replace("\0", "\ufffd").split())


def folded(name: str) -> str:
    """Equal for names that differ in capitals or spelling only: by it accounts are found, and tries to sign in counted.

    Made here and not by the database, whose lower() may know ASCII only.
    """
    return unicodedata.normalize("NFKC", spelled(name).casefold())


def fitted(name: str, most: int) -> str:
    """A name in at most so many characters; one that is cut ends in a digest, so that two of the same beginning stay two."""
    if len(name) <= most:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=6).hexdigest()
    return f"{name[: most - 13]}~{digest}"
