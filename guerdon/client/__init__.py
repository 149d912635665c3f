"""A reward server as a `Scorer`. `Client(url)` is in `http.py`, its connections in `connection.py`, what it makes of a reply in
`reply.py`, when it asks again in `retry.py`, whose certificates it trusts in `trust.py`.
"""

from __future__ import annotations

from guerdon.client.http import Client
from guerdon.client.retry import OnFailure

__all__ = ["Client", "OnFailure"]
