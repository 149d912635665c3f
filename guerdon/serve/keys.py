"""API keys: made at random, kept as salted hashes, compared in constant time; and a brake on guessing.

A key is `grd_ID_SECRET`. The file holds the id, so that a key is found without trying all, a salt, and the SHA-256 of salt
and secret. The secret has 256 random bits, which no dictionary reaches, so a fast hash is enough.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from guerdon.files import write_json
from guerdon.serve.call import Refused
from guerdon.types import ConfigError

_WINDOW = 60.0  # seconds in which wrong keys are counted
_MOST_ADDRESSES = 10_000
_MOST_KNOWN = 10_000  # digests of keys that were right


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept: never the key itself. `admin` may swap models."""

    id: str
    name: str
    salt: str
    hash: str
    admin: bool
    created: str


def read_keys(path: str | Path) -> list[Key]:
    """All keys of a file. Raises ConfigError when it cannot be read, or is not one."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        keys = [Key(**row) for row in raw["keys"]]
        if not all(isinstance(part, str) for key in keys for part in (key.id, key.name, key.salt, key.hash)):
            raise TypeError("id, name, salt and hash of a key must be texts")
        return keys
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); make it with guerdon serve-key add NAME"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path}: is not a file of keys ({error}); make it with guerdon serve-key add NAME"
        ) from error


def add_key(path: str | Path, name: str, *, admin: bool = False) -> str:
    """Make a key, keep its hash under a name, and return it: this is the only time it can be read.

    Raises ConfigError for a name that is taken or cannot be used.
    """
    keys = read_keys(path) if Path(path).exists() else []
    if not name or len(name) > 64 or not name.isprintable() or "/" in name:
        raise ConfigError(f"'{name[:64]}' cannot name a key; write 1 to 64 characters without a slash")
    if any(key.name == name for key in keys):
        raise ConfigError(f"{path}: there is a key called '{name}' already; remove it first, or choose another name")
    id, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_hex(16)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _write(Path(path), [*keys, Key(id, name, salt, _hash(salt, secret), admin, now)])
    return f"grd_{id}_{secret}"


def remove_key(path: str | Path, name: str) -> None:
    """Take a key away; running servers notice within a second. Raises ConfigError when there is none of that name."""
    keys = read_keys(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise ConfigError(f"{path}: there is no key called '{name}'")
    _write(Path(path), left)


def _write(path: Path, keys: list[Key]) -> None:
    old = os.umask(0o077)
    try:
        write_json(path, {"version": 1, "keys": [asdict(key) for key in keys]})
    finally:
        os.umask(old)


def _hash(salt: str, secret: str) -> str:
    return sha256(f"{salt}{secret}".encode("utf-8", "surrogateescape")).hexdigest()


class KeyRing:
    """The keys of a file, read again when it changes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._keys = {key.id: key for key in read_keys(path)}
        self._stamp = self._stat()
        self._looked = time.monotonic()
        self._known: OrderedDict[bytes, Key] = OrderedDict()

    def find(self, token: str) -> Key | None:
        """The key that a token is, or None."""
        self._refresh()
        _, _, rest = token.partition("_")
        id, _, secret = rest.partition("_")
        key = self._keys.get(id)
        expected = key.hash if key else "0" * 64
        right = hmac.compare_digest(_hash(key.salt if key else "", secret), expected)
        if key is None or not right or not token.startswith("grd_"):
            return None
        self._known[_digest(token)] = key
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return key

    def known(self, token: str) -> bool:
        """True for a token that was right before: its caller is not stopped because others guess from the same address."""
        self._refresh()
        return _digest(token) in self._known

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < 1.0:
            return
        self._looked = now
        stamp = self._stat()
        if stamp == self._stamp:
            return
        try:
            self._keys = {key.id: key for key in read_keys(self.path)}
        except ConfigError:
            return  # half written, or gone for a moment: the keys of before hold
        self._stamp = stamp
        self._known.clear()

    def _stat(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


class Guesses:
    """Wrong keys by address, over the last minute. After `limit` of them an address has to wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def require_few(self, address: str) -> None:
        """Raise Refused (429) for an address that guessed too often."""
        start, count = self._wrong.get(address, (0.0, 0))
        left = start + _WINDOW - time.monotonic()
        if count >= self.limit and left > 0:
            raise Refused(429, "too many wrong API keys from this address; wait", left, "guessing")

    def wrong(self, address: str) -> None:
        """Count a wrong key."""
        now = time.monotonic()
        start, count = self._wrong.pop(address, (now, 0))
        if now - start > _WINDOW:
            start, count = now, 0
        self._wrong[address] = (start, count + 1)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)


def token_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The key in `Authorization: Bearer`, in `X-API-Key` or `api-key`, or as the password of `Authorization: Basic`, which is
    what a client makes of http://:KEY@host when it has no place for headers. None when there is none.
    """
    scheme, _, value = headers.get(b"authorization", b"").strip().partition(b" ")
    value = value.strip()
    if scheme.lower() == b"basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return ""
    elif scheme.lower() != b"bearer":
        value = headers.get(b"x-api-key") or headers.get(b"api-key") or b""
        if not value:
            return "" if scheme else None
    return value.decode("utf-8", "surrogateescape")
