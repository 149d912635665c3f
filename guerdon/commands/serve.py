"""guerdon serve: reward models behind HTTP."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from guerdon.terminal import parse_options, spinner
from guerdon.types import ConfigError, Conversation

_INSTALL = "the server needs packages that are not installed; run: pip install 'guerdon[serve]'"


def serve(config: Any) -> None:
    """Serve reward models; see ServeConfig for the options."""
    if not config.models:
        raise ConfigError("there is no model to serve; name one: guerdon serve MODEL, or several: NAME=MODEL")
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{_INSTALL} ({error.name} is missing)") from error
    from guerdon.commands.listen import bound
    from guerdon.serve.app import create_app
    from guerdon.serve.keys import KeyRing
    from guerdon.serve.models import load
    from guerdon.serve.run import require_certificate
    from guerdon.serve.run import serve as run
    from guerdon.serve.run_routes import run_routes
    from guerdon.serve.service import Service
    from guerdon.serve.watch import locked, watch_of

    if config.tls_cert:
        require_certificate(config.tls_cert, config.tls_key)
    if config.watch_folder:
        locked(Path(config.watch_folder)).close()  # it is locked for good once the models are loaded
    keys = KeyRing(config.keys) if config.keys else None
    with closing(bound(config.host, config.port)) as at:
        training = _answers(config.drift_data)
        models = {}
        for name, path in config.named_models().items():
            if training:
                print(
                    f"--drift-data: {path} reads {len(training):,} answers before the port opens",
                    file=sys.stderr,
                    flush=True,
                )
            with spinner(f"loading {path}"):
                models[name] = load(name, path, config, training)
        service = Service(models, config, training)
        with watch_of(service) as watch:
            app = create_app(service, config.dialect, keys, run_routes(watch))
            run(app, service, lambda line: print(line, flush=True), at)
    if service.engine.is_busy:  # a batch that nobody waits for any more would hold the end up until it is scored
        logging.shutdown()
        os._exit(0)


def _answers(paths: tuple[str, ...], most: int = 2000) -> list[Conversation]:
    """The first two answers of each comparison, `most` conversations at most, evenly over the files."""
    from guerdon.data.read import load

    rows = load(paths).comparisons if paths else []
    step = max(1, len(rows) * 2 // most)
    return [talk for row in rows[::step] for talk in row.conversations()[:2]]


def parse(args: list[str]) -> Any:
    """Flags over the --config file over the defaults; all three use the same names."""
    from guerdon.serve.config import ServeConfig

    return parse_options(
        ServeConfig,
        args,
        "guerdon serve",
        "Serve frozen reward models over HTTP, with their contracts enforced. --config FILE reads any of these options from a "
        "YAML file; flags on the command line win over it.",
    )
