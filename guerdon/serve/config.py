"""Every choice of a reward server, in one frozen dataclass: the flags of `guerdon serve`, the keys of its YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from guerdon import options
from guerdon.aggregate import parse_rule
from guerdon.options import flag
from guerdon.types import ConfigError

_POSITIVE = (
    *("batch_tokens", "row_tokens", "queue_tokens", "max_items", "max_body", "body_seconds", "idle_seconds"),
    *("connections", "drain_seconds", "guesses", "run_idle"),
)
_LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeConfig:
    """How to serve reward models."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What to serve: the folder or hub id of a reward model, an ensemble as folders separated by commas, or NAME=MODEL for
    each of several. The first answers requests that name none."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but this machine needs --keys, or --no-keys."""
    port: int = 8300
    """Port to listen on; 0 takes a free one and says which."""
    device: str | None = None
    """cpu, cuda, cuda:1, ... Default: CUDA when there is one."""
    reward: str = "mean"
    """What an ensemble's reward is unless a request says otherwise: mean, min, mean-std:K, mean-var:K or quantile:Q."""
    dialect: str | None = None
    """Dialect that also answers at the root, besides its prefix (docs/dialects.md)."""
    allow_no_contract: bool = False
    """Serve models without a scoring contract too, though nothing then says that they score as they did in training. Their
    `contract` is null."""
    sharing: bool = True
    """Compute the part of a prompt that several completions share once. Changes no score."""
    batch_tokens: int | None = None
    """Tokens taken from the queue at once. Default: 8192 on CPU, 65536 on CUDA."""
    row_tokens: int | None = None
    """Tokens per forward pass, the dial between memory and speed. Default: 2048 on CPU, 8192 on CUDA."""
    queue_tokens: int = 400_000
    """Tokens that may wait for each model, as estimated from characters. More is refused with 429 and Retry-After."""
    max_items: int = 4096
    """Conversations in one request; more are refused with 413."""
    max_body: float = 16.0
    """MB in one request (one line, where lines are streamed); more is refused with 413, without reading on."""
    body_seconds: float = 30.0
    """Seconds a client may take to send a request; then 408."""
    idle_seconds: float = 65.0
    """Seconds a connection may stay open without a request."""
    connections: int = 4096
    """Open connections; more are answered 503. The limit of open files is raised for them where it may be."""
    cache_seconds: float = 120.0
    """How long the reply to a request with an Idempotency-Key is kept."""
    cache_mb: float = 64.0
    """Memory for these replies."""
    keys: str | None = None
    """File with the hashes of API keys (guerdon serve-key). Every route then asks for one."""
    no_keys: bool = False
    """Listen beyond this machine without keys: whoever reaches the port may use it, and see what others score."""
    open_health: bool = False
    """Answer /health and /ready without a key, for load balancers that have none."""
    guesses: int = 20
    """Wrong keys from one address in a minute; after that it is answered 429."""
    drift_data: tuple[str, ...] = ()
    """Comparisons the reward model was trained on: every score then says how far from them it lies."""
    watch_folder: str | None = None
    """Folder in which watched runs are kept across restarts, a small file each. Default: in memory only."""
    held_out: str | None = None
    """Name of the served model that a random share of every run's samples is checked with; it should not be the reward."""
    held_out_share: float = 0.1
    """Share of the samples that are checked, whole prompts at a time."""
    held_out_budget: int = 48
    """Checks in a step; the monitor asks for up to four times as many when it is in doubt."""
    watch_steps: int = 250
    """Planned length of a run in steps: a longer one is looked at more often and needs more evidence for a stop."""
    run_idle: float = 900.0
    """Seconds without a call after which a run is over, so that a model may be swapped."""
    drain_seconds: float = 30.0
    """Seconds that requests may take to finish after SIGTERM."""
    tls_cert: str | None = None
    """Certificate (PEM, with its chain) to speak https with; needs --tls-key."""
    tls_key: str | None = None
    """Private key of --tls-cert (PEM)."""
    log: Literal["requests", "problems"] = "requests"
    """What goes to stderr, a JSON object a line: every request, or only those that were refused or failed."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{flag(name)} must be greater than 0, got {value}")
        for name in ("cache_seconds", "cache_mb"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(f"{flag(name)} must be 0 or greater, got {getattr(self, name)}")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be from 0 to 65535, got {self.port}")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert and --tls-key go together: the certificate and its private key")
        for name in ("tls_cert", "tls_key"):
            if getattr(self, name) and not Path(getattr(self, name)).is_file():
                raise ConfigError(f"{flag(name)} {getattr(self, name)}: there is no such file")
        if self.host not in _LOCAL and not (self.keys or self.no_keys):
            raise ConfigError(
                f"--host {self.host} can be reached from other machines; make a key (guerdon serve-key add NAME --keys FILE) "
                "and name the file with --keys, or say --no-keys"
            )
        parse_rule(self.reward)
        names = self.named_models()
        if names and self.held_out is not None and self.held_out not in names:
            raise ConfigError(f"--held-out {self.held_out}: is not served; choose one of {', '.join(names)}")

    def named_models(self) -> dict[str, str]:
        """Name -> path, in order. A single model without a name is called by the last part of its path that says something.

        Raises ConfigError when two have one name.
        """
        found: dict[str, str] = {}
        for text in self.models:
            name, equals, path = text.partition("=")
            if not equals:
                name, path = _name_of(text), text
            if not name or not path or "/" in name:
                raise ConfigError(f"{text}: write NAME=MODEL, the name without a slash")
            if name in found:
                raise ConfigError(f"two models are called '{name}'; write NAME=MODEL for each")
            found[name] = path
        return found


def _name_of(path: str) -> str:
    """The folder of the run for RUN/model, else the last part of the path; `ensemble` for several."""
    if "," in path:
        return "ensemble"
    parts = [part for part in Path(path).parts if part not in ("/", "model", "..", ".")]
    return parts[-1] if parts else "model"


def from_yaml(path: str | Path) -> ServeConfig:
    """A config from a YAML file whose keys are the field names (dashes allowed). Raises ConfigError, naming the key."""
    return options.from_yaml(ServeConfig, path)
