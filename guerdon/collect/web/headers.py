"""What every response carries and every request must bring: security headers, a known host, a bounded body.

Pure ASGI, outermost: no page, error or file leaves without them.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(  # nothing but what this server serves; no inline script or style; no markup from a string but by one named door
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types guerdon",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # `no-referrer` would blank the Origin header of our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
YEAR = 365 * 24 * 3600


class Guard:
    """Refuses requests for a host that is not ours (DNS rebinding) and puts the headers on every response."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], secure: bool) -> None:
        """`hosts`: the values of Host that are ours, without port; empty allows any. `secure`: served under TLS."""
        self.app, self.hosts, self.secure = app, hosts, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if self.secure:
                    headers["strict-transport-security"] = f"max-age={YEAR}"
            await send(message)

        if self.hosts and host_of(Headers(scope=scope).get("host", "")) not in self.hosts:
            refusal = PlainTextResponse("This server does not answer for that host name.\n", 421)
            await refusal(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def host_of(value: str) -> str:
    """The name in a Host header or an origin, without scheme and port, in lower case."""
    name = value.rpartition("://")[2].partition("/")[0].lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]
