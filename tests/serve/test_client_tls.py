"""The client and the command line against a server that speaks https with a certificate that nobody has signed."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from dataclasses import dataclass

import pytest
from serving import listening, service_of, talk, value_of

from guerdon.cli import main
from guerdon.client import Client
from guerdon.types import ConfigError, ScoringError


@dataclass
class Secure:
    """A port that speaks https, and the file with its certificate, which is good for 127.0.0.1 and not for localhost."""

    port: int
    ca: str

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl on the PATH, to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, ca = str(folder / "key.pem"), str(folder / "cert.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    extensions = ["subjectAltName=IP:127.0.0.1", "keyUsage=critical,keyCertSign,digitalSignature"]
    more = [word for extension in extensions for word in ("-addext", extension)]
    subprocess.run([*command.split(), "-keyout", key, "-out", ca, *more], check=True, capture_output=True)
    with listening(service_of(), tls=(ca, key)) as (port, _):
        yield Secure(port, ca)


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


def all_ways(client):
    """The same row by every way to ask."""
    yield lambda: client.score([talk("a")])
    yield lambda: asyncio.run(client.ascore([talk("a")]))
    yield lambda: [score for _, score in client.stream([talk("a")])]

    async def stream():
        return [score async for _, score in client.astream([talk("a")])]

    yield lambda: asyncio.run(stream())


@pytest.mark.parametrize("on_failure", ["mask", "wait", "raise"])
def test_an_unknown_certificate_is_no_reason_to_wait(secure, on_failure):
    started = time.monotonic()
    for ask in all_ways(Client(secure.url, on_failure=on_failure)):
        with pytest.raises(ScoringError, match=r"cannot be verified \(self-signed certificate\); .*SSL_CERT_FILE"):
            ask()
    assert time.monotonic() - started < 5


def test_a_named_certificate_is_trusted(secure, monkeypatch):
    for ask in all_ways(Client(secure.url, ca=secure.ca)):
        assert ask() == [value_of("a")]
    monkeypatch.setenv("SSL_CERT_FILE", secure.ca)
    for ask in all_ways(Client(secure.url)):
        assert ask() == [value_of("a")]


def test_a_certificate_for_another_host_is_none(secure):
    with pytest.raises(ScoringError, match=r"cannot be verified \(Hostname mismatch, .* 'localhost'\.\)$"):
        Client(f"https://localhost:{secure.port}", ca=secure.ca).score([talk("a")])


def test_https_where_nobody_speaks_it():
    with listening(service_of()) as (port, _):
        for ask in all_ways(Client(f"https://127.0.0.1:{port}")):
            with pytest.raises(ScoringError, match=r"does not speak https .*; write http://"):
                ask()


def test_http_where_https_is_spoken_is_said(secure):
    [score] = Client(secure.url.replace("https", "http"), patience=0).score([talk("a")])
    assert score.reason.endswith("; if the server speaks https, write https://")


def test_a_file_without_certificates(tmp_path, monkeypatch):
    (tmp_path / "notes.pem").write_text("no certificate")
    for file in ("gone.pem", "notes.pem"):
        with pytest.raises(ConfigError, match=rf"{file}: holds no certificates \(PEM\) that can be read"):
            Client("https://h", ca=str(tmp_path / file))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with pytest.raises(ConfigError, match=r"^SSL_CERT_FILE=.*gone.pem: holds no certificates"):
        Client("https://h")


def test_a_file_is_scored_through_https(secure, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text(json.dumps({"messages": talk("a")}) + "\n", encoding="utf-8")
    command = ["score", "--server", secure.url, "--data", f"{tmp_path}/in.jsonl", "--output", f"{tmp_path}/out.jsonl"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    assert "cannot be verified (self-signed certificate); name the file that signed it" in capsys.readouterr().err
    main([*command, "--ca", secure.ca])
    assert json.loads((tmp_path / "out.jsonl").read_text())["scores"] == [value_of("a")]
