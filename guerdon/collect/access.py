"""Who may do what: accounts, roles, invitations, which studies somebody sees, and the log of what was done.

Three roles. An `admin` sees everything. A `lead` runs the studies they belong to and may begin new ones. A `rater` answers in
the studies they belong to and sees nothing of anybody else. Signing in is next door, in sessions.py.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from argon2 import PasswordHasher
from sqlalchemy.exc import IntegrityError

from guerdon.collect import schema
from guerdon.collect.names import folded, valid_name
from guerdon.collect.store import Store
from guerdon.types import ConfigError

Role = Literal["admin", "lead", "rater"]
ROLES: tuple[Role, ...] = ("admin", "lead", "rater")
SHORTEST, LONGEST = 10, 512  # characters of a password: long enough to hold, short enough to hash
HOUR = 3600.0
LEFT = "left a study"  # in the log
HASHER = PasswordHasher()  # argon2id with the parameters of RFC 9106, section 4 (second choice: 64 MiB)


@dataclass(frozen=True, slots=True)
class Person:
    """An account. `name` is also the rater's name in judgements."""

    id: int
    name: str
    role: Role
    active: bool
    created: float


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a link lets its bearer become: `role`, in `study` ("" for none), until `expires`."""

    role: Role
    study: str
    expires: float
    uses: int


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log."""

    at: float
    person: str
    action: str
    study: str
    detail: dict[str, Any]


class Access:
    """The tables of people and rights in a store's database. Every change writes its line to the audit log in the same
    transaction."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time, secret: str = "") -> None:
        self.read, self.write, self.clock, self._secret = store.read, store.write, clock, secret.encode()

    def digest(self, token: str) -> str:
        """How a token is kept: HMAC-SHA-256 under the server's secret. It has 256 random bits, so nothing can be told from it."""
        return hmac.new(self._secret, token.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    # --- accounts

    def add(self, name: str, role: Role, password: str, by: str = "") -> Person:
        """A new account. Raises ConfigError when the name is taken or cannot be one, or the password is weak."""
        name, row = valid_name(name), {"role": valid_role(role), "password": hashed(password, name)}
        try:
            self.write(lambda db: self._insert(db, name, row, by or name))
        except IntegrityError:
            raise ConfigError(f"there is already an account '{name}'; choose another name") from None
        person = self.find(name)
        assert person is not None
        return person

    def require_free(self, name: str) -> None:
        """Raise ConfigError when an account of that name cannot be added."""
        self.read(lambda db: _require_free(db, valid_name(name)))

    def _insert(self, db: sa.Connection, name: str, row: dict[str, Any], by: str) -> int:
        _require_free(db, name)
        fixed = {"name": name, "folded": folded(name), "active": True, "created": self.clock()}
        done = db.execute(sa.insert(schema.user).values(**row, **fixed))
        self.log(db, by, "account added", detail={"name": name, "role": row["role"]})
        key = done.inserted_primary_key
        assert key is not None
        return int(key[0])

    def find(self, name: str) -> Person | None:
        """The account of that name, in whatever capitals, and whether or not it is active."""
        row = self.read(lambda db: _find(db, name))
        return person_of(row) if row else None

    def people(self, study: str = "") -> list[Person]:
        """All accounts, or those that belong to a study, by name."""
        query = sa.select(schema.user).order_by(schema.user.c.name)
        if study:
            query = query.join(schema.membership, schema.membership.c.person == schema.user.c.id).join(
                schema.study, schema.study.c.id == schema.membership.c.study
            )
            query = query.where(schema.study.c.name == study)
        return self.read(lambda db: [person_of(row) for row in db.execute(query)])

    def former(self, study: str) -> list[Person]:
        """Those who were taken out of a study and did not come back, by name."""
        table, inside = schema.audit, {person.name for person in self.people(study)}
        query = sa.select(table.c.detail).join(schema.study).where(table.c.action == LEFT, schema.study.c.name == study)
        details = self.read(lambda db: db.execute(query).scalars().all())
        left = {json.loads(detail)["name"] for detail in details} - inside
        return [person for person in self.people() if person.name in left] if left else []

    def set_password(self, name: str, password: str, by: str) -> None:
        """A new password; everybody who is signed in with the old one is signed out, and failed tries count no more."""
        self._change(name, by, "password changed", {}, {"password": hashed(password, name)}, sign_out=True)

    def set_active(self, name: str, active: bool, by: str) -> None:
        """Close an account (and sign its owner out), or open it again. Its judgements stay."""
        action = "account opened" if active else "account closed"
        self._change(name, by, action, {}, {"active": active}, sign_out=not active)

    def set_role(self, name: str, role: Role, by: str) -> None:
        """Another role. Raises ConfigError when the last active admin would be gone."""
        self._change(name, by, "role changed", {"role": role}, {"role": valid_role(role)}, sign_out=True)

    def _change(
        self, name: str, by: str, action: str, detail: dict[str, Any], values: dict[str, Any], sign_out: bool
    ) -> None:
        def work(db: sa.Connection) -> None:
            found = _find(db, name)
            if found is None:
                raise ConfigError(f"there is no account '{name}'; see `guerdon collect user list`")
            loses = values.get("active") is False or values.get("role", "admin") != "admin"
            if found.role == "admin" and found.active and loses and self._admins(db) == 1:
                raise ConfigError(f"'{name}' is the last admin; make another one first")
            db.execute(sa.update(schema.user).where(schema.user.c.id == found.id).values(**values))
            if sign_out:
                db.execute(sa.delete(schema.session).where(schema.session.c.person == found.id))
            forgotten = _forget_failures(db, name) if "password" in values else 0
            more = {"failed sign-ins forgotten": forgotten} if forgotten else {}
            self.log(db, by, action, detail={"name": found.name} | detail | more)

        self.write(work)

    @staticmethod
    def _admins(db: sa.Connection) -> int:
        query = sa.select(sa.func.count()).where(schema.user.c.role == "admin", schema.user.c.active)
        return int(db.execute(query).scalar_one())

    # --- who sees which study

    def studies(self, person: Person) -> list[str]:
        """Names of the studies somebody sees, in order."""
        query = sa.select(schema.study.c.name).order_by(schema.study.c.name)
        if person.role != "admin":
            query = query.join(schema.membership).where(schema.membership.c.person == person.id)
        return self.read(lambda db: list(db.execute(query).scalars()))

    def sees(self, person: Person, study: str) -> bool:
        """Whether somebody may know that a study exists."""
        query = sa.select(schema.study.c.id).where(schema.study.c.name == study)
        if person.role != "admin":
            query = query.join(schema.membership).where(schema.membership.c.person == person.id)
        return self.read(lambda db: db.execute(query).first() is not None)

    def join(self, name: str, study: str, by: str) -> None:
        """Let somebody into a study; nothing happens when they are in already."""
        self._membership(name, study, by, joining=True)

    def leave(self, name: str, study: str, by: str) -> None:
        """Take a study from somebody's sight. Their judgements stay."""
        self._membership(name, study, by, joining=False)

    def _membership(self, name: str, study: str, by: str, joining: bool) -> None:
        table = schema.membership

        def work(db: sa.Connection) -> None:
            person = _find(db, name)
            number = db.execute(sa.select(schema.study.c.id).where(schema.study.c.name == study)).scalar()
            if person is None or number is None:
                raise ConfigError(f"there is no account '{name}'" if person is None else f"there is no study '{study}'")
            here = sa.and_(table.c.person == person.id, table.c.study == number)
            is_in = db.execute(sa.select(table.c.study).where(here)).first() is not None
            if is_in == joining:
                return
            change = (
                sa.insert(table).values(person=person.id, study=number) if joining else sa.delete(table).where(here)
            )
            db.execute(change)
            self.log(db, by, "joined a study" if joining else LEFT, study=study, detail={"name": person.name})

        self.write(work)

    # --- invitations

    def invite(self, role: Role, study: str, by: Person, hours: float = 72.0, uses: int = 1) -> str:
        """The token of a new link; only its digest is kept. Raises ConfigError for a right that `by` does not have."""
        if by.role == "rater" or (by.role == "lead" and not self.sees(by, study)):
            where = f"study '{study}'" if study else "the whole server"
            raise ConfigError(
                f"'{by.name}' cannot invite into {where}; an admin can, and a lead into a study of theirs"
            )
        if by.role == "lead" and valid_role(role) == "admin":
            raise ConfigError("a lead invites leads and raters, into a study")
        if not 0 < hours <= 24 * 60 or not 1 <= uses <= 500:
            raise ConfigError("an invitation holds for at most 60 days and 500 people")
        token, now = secrets.token_urlsafe(32), self.clock()

        def work(db: sa.Connection) -> None:
            number = db.execute(sa.select(schema.study.c.id).where(schema.study.c.name == study)).scalar()
            row = {"role": valid_role(role), "study": number, "author": by.id, "uses": uses, "created": now}
            db.execute(
                sa.insert(schema.invitation).values(digest=self.digest(token), expires=now + hours * HOUR, **row)
            )
            self.log(db, by.name, "invited", study=study, detail={"role": role, "uses": uses, "hours": hours})

        self.write(work)
        return token

    def invitation(self, token: str) -> Invitation | None:
        """What a link still offers; None when it is unknown, used up or too old."""
        table = schema.invitation
        query = sa.select(table.c.role, schema.study.c.name, table.c.expires, table.c.uses)
        query = query.select_from(table.outerjoin(schema.study)).where(table.c.digest == self.digest(token))
        row = self.read(lambda db: db.execute(query).first())
        if row is None or row.uses < 1 or row.expires <= self.clock():
            return None
        return Invitation(row.role, row.name or "", row.expires, row.uses)

    def accept(self, token: str, name: str, password: str) -> Person:
        """An account by invitation. Raises ConfigError when the link is spent or the name or password will not do."""
        name, secret = valid_name(name), hashed(password, name)
        table = schema.invitation

        def work(db: sa.Connection) -> None:
            here = sa.and_(table.c.digest == self.digest(token), table.c.uses > 0, table.c.expires > self.clock())
            spent = db.execute(sa.update(table).where(here).values(uses=table.c.uses - 1))
            row = db.execute(sa.select(table).where(table.c.digest == self.digest(token))).first()
            if spent.rowcount != 1 or row is None:
                raise ConfigError("this invitation is used up or too old; ask for a new one")
            person = self._insert(db, name, {"role": row.role, "password": secret}, name)
            if row.study is not None:
                db.execute(sa.insert(schema.membership).values(person=person, study=row.study))

        try:
            self.write(work)
        except IntegrityError:
            raise ConfigError(f"there is already an account '{name}'; choose another name") from None
        found = self.find(name)
        assert found is not None
        return found

    # --- the log

    def log(
        self, db: sa.Connection, person: str, action: str, study: str = "", detail: dict[str, Any] | None = None
    ) -> None:
        """A line in the audit log, in the caller's transaction."""
        number = (
            db.execute(sa.select(schema.study.c.id).where(schema.study.c.name == study)).scalar() if study else None
        )
        text = json.dumps(detail or {}, ensure_ascii=False)
        values = {"at": self.clock(), "person": person[:80], "action": action[:40], "study": number, "detail": text}
        db.execute(sa.insert(schema.audit).values(**values))

    def note(self, person: str, action: str, study: str = "", **detail: Any) -> None:
        """A line in the audit log, in a transaction of its own."""
        self.write(lambda db: self.log(db, person, action, study, detail))

    def events(self, limit: int = 200, before: float | None = None, study: str = "") -> list[Event]:
        """The latest lines of the audit log, newest first."""
        table = schema.audit
        query = sa.select(table, schema.study.c.name.label("study_name")).select_from(table.outerjoin(schema.study))
        query = query.order_by(table.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.at < before)
        if study:
            query = query.where(schema.study.c.name == study)
        rows = self.read(lambda db: db.execute(query).all())
        return [Event(row.at, row.person, row.action, row.study_name or "", json.loads(row.detail)) for row in rows]


def _find(db: sa.Connection, name: str) -> Any:
    return db.execute(sa.select(schema.user).where(schema.user.c.folded == folded(name))).first()


def _require_free(db: sa.Connection, name: str) -> None:
    if _find(db, name):
        raise ConfigError(f"there is already an account '{name}'; choose another name")


def _forget_failures(db: sa.Connection, name: str) -> int:
    """Let the next password of an account be looked at, whatever was tried before; returns how many tries there were."""
    table = schema.login_attempt.c
    failed = table.name == folded(name)[:80], sa.not_(table.ok)
    return db.execute(sa.delete(schema.login_attempt).where(*failed)).rowcount


def new_password() -> str:
    """A password of 96 random bits, to be handed over once."""
    return "-".join(secrets.token_hex(3) for _ in range(4))


def hashed(password: str, name: str) -> str:
    """The argon2id hash of a password. Raises ConfigError when it is too short, too long, or the name."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(f"a password has {SHORTEST} to {LONGEST} characters; a few unrelated words make a good one")
    if folded(name) in folded(password) and len(name) > 3 and len(password) < len(name) + 6:
        raise ConfigError("the password is the name, or nearly; a few unrelated words make a good one")
    if len(set(password)) < 4:
        raise ConfigError("the password repeats the same few characters; a few unrelated words make a good one")
    return HASHER.hash(password)


def valid_role(role: str) -> Role:
    for known in ROLES:
        if role == known:
            return known
    raise ConfigError(f"there is no role '{role}'; write admin, lead or rater")


def person_of(row: Any) -> Person:
    return Person(row.id, row.name, row.role, bool(row.active), row.created)
