"""guerdon serve-key: make, list and remove the API keys of a reward server."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from guerdon.types import ConfigError


def serve_key(
    action: Annotated[Literal["add", "list", "remove"], tyro.conf.Positional],
    name: Annotated[str, tyro.conf.Positional] = "",
    keys: str = "keys.json",
    admin: bool = False,
) -> None:
    """Make a key and print it once, list the names of all, or take one away. The file holds salted hashes only.

    Args:
        action: add, list or remove.
        name: Whose key it is.
        keys: File of the keys; give the same to guerdon serve --keys.
        admin: The key may also swap models.
    """
    from guerdon.serve.keys import add_key, read_keys, remove_key

    if action == "list":
        for key in read_keys(keys):
            print(f"{key.name}  {key.id}  {key.created}{'  admin' if key.admin else ''}")
    elif not name:
        raise ConfigError(f"serve-key {action}: name the key, as in guerdon serve-key {action} trainer")
    elif action == "add":
        print(add_key(keys, name, admin=admin))
    else:
        remove_key(keys, name)
