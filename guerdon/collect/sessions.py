"""Signing in: passwords checked without haste, sessions kept on the server, guessing slowed down.

A session is 256 random bits in a cookie; the database holds their digest, so a copied database opens nothing. Signing in
always makes a new one. Failures are counted for each account at each address, for each account, and for each address.
"""

from __future__ import annotations

import functools
import hmac
import secrets
import threading
from dataclasses import dataclass

import sqlalchemy as sa
from argon2.exceptions import InvalidHashError, VerificationError

from guerdon.collect import schema
from guerdon.collect.access import HASHER, LONGEST, Access, Person, person_of
from guerdon.collect.names import folded, spelled

LIFE, IDLE = 14 * 24 * 3600.0, 24 * 3600.0  # seconds a session lasts, at most and without use
SEEN_EVERY = 300.0  # seconds between two notes that a session is in use
WINDOW = 900.0  # seconds for which a failure counts
# Failures within the window after which no password is looked at. The pair is the tight one: an account's owner, at another
# address, is not shut out by somebody who guesses.
# A try counts as failed until its password was found right, and raters in one room may all sign in at once: more of them
# than the server has threads, 40, fit into an address.
PAIR, ACCOUNT, ADDRESS = 5, 50, 60
AT_ONCE = threading.BoundedSemaphore(2)  # each check of a password takes 64 MiB


class SignInRefused(Exception):
    """Nobody is signed in. `wait`: seconds until the next try is looked at; 0 for a wrong name or password."""

    def __init__(self, wait: float = 0.0) -> None:
        super().__init__("too many tries" if wait else "wrong name or password")
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. `csrf` goes into every form and script request that changes anything."""

    person: Person
    csrf: str
    digest: str


def sign_in(access: Access, name: str, password: str, address: str, old: str = "") -> str:
    """The token of a new session; `old`, the cookie that came with the request, is worthless afterwards.

    Raises SignInRefused. An unknown name takes as long as a wrong password.
    """
    key = folded(name)
    wait, attempt = access.write(lambda db: _attempt(db, key[:80], address[:64], access.clock()))
    if wait:
        raise SignInRefused(wait)
    query = sa.select(schema.user).where(schema.user.c.folded == key)
    row = access.read(lambda db: db.execute(query).first())
    right = _right(row.password if row else _decoy(), password[: LONGEST + 1]) and row is not None and bool(row.active)
    if not right or row is None:
        access.note(spelled(name), "sign-in refused", address=address)
        raise SignInRefused
    access.write(lambda db: _succeeded(db, attempt))
    if HASHER.check_needs_rehash(row.password):
        fresh = sa.update(schema.user).where(schema.user.c.id == row.id).values(password=HASHER.hash(password))
        access.write(lambda db: db.execute(fresh).rowcount)
    return begin(access, person_of(row), old)


def begin(access: Access, person: Person, old: str = "") -> str:
    """A new session without a password: after an invitation was accepted, or a password changed."""
    token, now = secrets.token_urlsafe(32), access.clock()
    row = {"person": person.id, "csrf": secrets.token_urlsafe(24), "created": now, "seen": now, "expires": now + LIFE}

    def work(db: sa.Connection) -> None:
        stale = sa.or_(schema.session.c.digest == access.digest(old), schema.session.c.expires < now)
        db.execute(sa.delete(schema.session).where(stale))
        db.execute(sa.insert(schema.session).values(digest=access.digest(token), **row))
        access.log(db, person.name, "signed in")

    access.write(work)
    return token


def session(access: Access, token: str) -> Session | None:
    """Who a cookie belongs to; None when it is unknown, too old, or its account closed."""
    if not token:
        return None
    now, table = access.clock(), schema.session
    query = sa.select(schema.user, table.c.csrf, table.c.seen, table.c.expires, table.c.digest)
    query = query.join(table, table.c.person == schema.user.c.id).where(table.c.digest == access.digest(token))
    row = access.read(lambda db: db.execute(query).first())
    if row is None or not row.active or row.expires <= now or row.seen + IDLE <= now:
        return None
    if row.seen + SEEN_EVERY < now:
        seen = sa.update(table).where(table.c.digest == row.digest).values(seen=now)
        access.write(lambda db: db.execute(seen).rowcount)
    return Session(person_of(row), row.csrf, row.digest)


def sign_out(access: Access, current: Session) -> None:
    """End one session."""

    def work(db: sa.Connection) -> None:
        db.execute(sa.delete(schema.session).where(schema.session.c.digest == current.digest))
        access.log(db, current.person.name, "signed out")

    access.write(work)


def password_is(access: Access, person: Person, password: str) -> bool:
    """Whether a signed-in person knows their password: asked again before it is changed."""
    query = sa.select(schema.user.c.password).where(schema.user.c.id == person.id)
    kept = access.read(lambda db: db.execute(query).scalar_one())
    return _right(kept, password)


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing."""
    return bool(one) and hmac.compare_digest(one.encode(), other.encode())


def _attempt(db: sa.Connection, name: str, address: str, now: float) -> tuple[float, int]:
    """(0, number of this try), counted as a failure from now on; or (seconds to wait, 0) when there were too many.

    Counted and recorded in one transaction, before the password is looked at: else tries sent at once all pass.
    """
    table = schema.login_attempt
    recent, by_name, by_address = table.c.at > now - WINDOW, table.c.name == name, table.c.address == address
    longest = 0.0
    for where, most in ((by_name & by_address, PAIR), (by_name, ACCOUNT), (by_address, ADDRESS)):
        query = sa.select(table.c.at).where(recent, sa.not_(table.c.ok), where).order_by(table.c.at.desc()).limit(most)
        found = db.execute(query).scalars().all()
        if len(found) == most:
            longest = max(longest, found[-1] + WINDOW - now)
    if longest:
        return longest, 0
    db.execute(sa.delete(table).where(table.c.at < now - 4 * WINDOW))
    made = db.execute(sa.insert(table).values(name=name, address=address, at=now, ok=False)).inserted_primary_key
    assert made is not None
    return 0.0, int(made[0])


def _succeeded(db: sa.Connection, attempt: int) -> None:
    """What came before at this address was its owner's typing."""
    table = schema.login_attempt
    this = db.execute(sa.select(table).where(table.c.id == attempt)).first()
    if this is None:  # forgotten meanwhile: a new password, or another success
        return
    db.execute(sa.update(table).where(table.c.id == attempt).values(ok=True))
    same = table.c.name == this.name, table.c.address == this.address, sa.not_(table.c.ok)
    db.execute(sa.delete(table).where(*same))


def _right(kept: str, password: str) -> bool:
    try:
        with AT_ONCE:
            return HASHER.verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False


@functools.cache
def _decoy() -> str:
    """A hash that no password has, to be checked for names that nobody has."""
    return HASHER.hash(secrets.token_urlsafe(32))
