"""guerdon collect user: accounts, from the command line of the machine that holds the database."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Literal

from tyro.conf import Positional

from guerdon.types import ConfigError


def collect_user(
    action: Positional[Literal["add", "list", "password", "close", "open", "invite"]],
    name: Positional[str] = "",
    database: str = "study.db",
    role: Literal["admin", "lead", "rater"] = "rater",
    study: tuple[str, ...] = (),
    generate: bool = False,
) -> None:
    """Add, list, close or open accounts, set a password, or make an invitation link's token.

    Args:
        action: add, list, password, close, open, or invite.
        name: Of the account; for `invite`, who invites: an admin, or a lead of that study.
        database: SQLite file, or postgresql://USER:PASSWORD@HOST/NAME.
        role: Of the account, or of whoever accepts the invitation.
        study: Studies that the account sees; give it once for each. Admins see all.
        generate: Make a password and print it once, instead of asking. So it is where nobody can be asked.
    """
    from guerdon.collect.access import Access
    from guerdon.collect.store import Store

    with Store.open(database, make=False) as store:
        access = Access(store, secret=os.environ.get("GUERDON_SECRET", ""))
        if action == "list":
            for person in access.people():
                print(f"{person.name}\t{person.role}\t{'active' if person.active else 'closed'}")
            return
        if not name:
            raise ConfigError(f"whose? write: guerdon collect user {action} NAME")
        for one in study:
            store.study(one)  # there is one of that name
        if action == "add":
            access.require_free(name)
            person = access.add(name, role, _password(generate), by="command line")
            for one in study:
                access.join(person.name, one, "command line")
            print(f"{person.role} {person.name} can sign in now: guerdon collect start --database {database}")
            return
        known = access.find(name)
        if known is None:
            raise ConfigError(f"there is no account '{name}'; see guerdon collect user list")
        if action == "password":
            access.set_password(name, _password(generate), "command line")
            print(f"{name} has a new password and is signed out everywhere")
        elif action == "invite":
            token = access.invite(role, study[0] if study else "", known)
            if "GUERDON_SECRET" not in os.environ:
                print(
                    "GUERDON_SECRET is not set: a server that is started with one does not know this link; set the same here",
                    file=sys.stderr,
                )
            print(f"/invitation/{token}  (put the address of the server in front; works once, for 72 hours)")
        else:
            access.set_active(name, action == "open", "command line")
            print(f"{name} is {'open' if action == 'open' else 'closed and signed out'}")


def _password(generate: bool) -> str:
    """Asked twice, or made and printed once."""
    from guerdon.collect.access import new_password

    if generate or not sys.stdin.isatty():
        made = new_password()
        print(f"password, shown once: {made}")
        return made
    first = getpass.getpass("password: ")
    if first != getpass.getpass("the same again: "):
        raise ConfigError("the two passwords differ; run it again")
    return first
