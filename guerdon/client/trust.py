"""Whose certificates are trusted, and what is said of a server whose certificate is not: at once, for waiting mends none."""

from __future__ import annotations

import os
import ssl

import httpx2

from guerdon.types import ConfigError, ScoringError

_UNSIGNED = (18, 19, 20, 21)  # OpenSSL's codes for a certificate that nobody who is trusted has signed


def trusted(ca: str | None) -> ssl.SSLContext:
    """Trust in the certificates of the file `ca` (PEM); without one, in those that SSL_CERT_FILE or this machine names. Raises
    ConfigError when the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca) if ca else httpx2.create_ssl_context()
    except OSError as error:
        file = ca or f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE')}"
        raise ConfigError(f"{file}: holds no certificates (PEM) that can be read ({error.strerror})") from error


def require_trust(base: str, error: BaseException) -> None:
    """Raise ScoringError when an attempt failed because server and client could not agree on TLS."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLError):
        found = found.__cause__ or found.__context__
    if isinstance(found, ssl.SSLCertVerificationError):
        advice = "; name the file that signed it: ca=FILE, --ca FILE or SSL_CERT_FILE" * (
            found.verify_code in _UNSIGNED
        )
        raise ScoringError(f"{base}: its certificate cannot be verified ({found.verify_message}){advice}") from None
    if found is not None and isinstance(error, httpx2.ConnectError) and not isinstance(found, ssl.SSLEOFError):
        raise ScoringError(f"{base}: does not speak https ({found.reason}); write http:// if it speaks that") from None
