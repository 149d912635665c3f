"""guerdon collect start: the web application."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from guerdon.collect.web.app import Serving

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST_SECRET = 32


def collect_start(
    database: str = "study.db",
    host: str = "127.0.0.1",
    port: int = 8600,
    public_url: str | None = None,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
    behind_proxy: str | None = None,
    insecure: bool = False,
) -> None:
    """Serve the rater's screen and the pages of leads and admins. By default only this machine can reach it.

    Args:
        database: SQLite file (made when there is none), or postgresql://USER:PASSWORD@HOST/NAME.
        host: Address to listen on. Any but this machine's own needs --public-url, and TLS or --behind-proxy or --insecure.
        port: To listen on; 0 takes a free one and prints it.
        public_url: How browsers reach it, such as https://label.example.org; other names are refused.
        tls_certificate: File with the certificate chain (PEM).
        tls_key: File with its private key (PEM).
        behind_proxy: Address of the proxy that ends TLS in front of this server; its X-Forwarded-* headers are believed.
        insecure: Listen wider without TLS. Passwords and answers can then be read on the way.
    """
    from guerdon.commands.listen import bound
    from guerdon.types import ConfigError

    try:
        import uvicorn

        from guerdon.collect.access import Access
        from guerdon.collect.store import Store
        from guerdon.collect.web.app import application
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing; pip install 'guerdon[collect]'") from None
    serving = serving_of(host, port, public_url, tls_certificate, tls_key, behind_proxy, insecure)
    with bound(host, port) as at, Store.open(database) as store:
        shown = f"[{host}]" if ":" in host else host
        url = public_url or f"{'https' if serving.secure else 'http'}://{shown}:{at.getsockname()[1]}"
        print(f"guerdon collect: {url} (stop with Ctrl+C)", flush=True)
        if not any(person.role == "admin" for person in Access(store).people()):
            print(
                f"there is no admin yet: guerdon collect user add NAME --role admin --database {database}", flush=True
            )
        config = uvicorn.Config(
            application(store, serving),
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=tls_certificate,
            ssl_keyfile=tls_key,
            proxy_headers=behind_proxy is not None,
            forwarded_allow_ips=behind_proxy,
            timeout_graceful_shutdown=10,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([at])


def serving_of(
    host: str,
    port: int,
    public_url: str | None,
    certificate: str | None,
    key: str | None,
    proxy: str | None,
    insecure: bool,
) -> Serving:
    """How the application may be reached. Raises ConfigError for what would be unsafe."""
    from guerdon.collect.web.app import Serving
    from guerdon.collect.web.headers import host_of
    from guerdon.types import ConfigError

    if (certificate is None) != (key is None):
        raise ConfigError("TLS needs both --tls-certificate and --tls-key")
    for path in (certificate, key):
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"{path}: there is no such file")
    secure, secret = certificate is not None or proxy is not None, os.environ.get("GUERDON_SECRET", "")
    if host not in LOOPBACK:
        if not secure and not insecure:
            raise ConfigError(
                f"refusing to listen on {host} without TLS: give --tls-certificate and --tls-key, or --behind-proxy ADDRESS, "
                "or --insecure if everybody on that network may read what raters send"
            )
        if public_url is None:
            raise ConfigError(f"listening on {host} needs --public-url, the address that browsers use")
        if len(secret) < SHORTEST_SECRET:
            raise ConfigError(
                f"listening on {host} needs a secret of {SHORTEST_SECRET} characters or more in the environment variable "
                "GUERDON_SECRET: the digests of sessions and invitations are keyed with it"
            )
    if public_url is not None:
        parts = urlsplit(public_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError(f"--public-url is {public_url}; write https://NAME or https://NAME:PORT")
        origin = f"{parts.scheme}://{parts.netloc}".lower()
        return Serving(secure or parts.scheme == "https", frozenset({origin}), frozenset({host_of(origin)}), secret)
    return Serving(secure, frozenset(), frozenset({"127.0.0.1", "localhost", "[::1]"}), secret)
