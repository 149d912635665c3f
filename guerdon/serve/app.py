"""The web application: native routes, dialects under their prefixes and one of them at the root, behind one door."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount

from guerdon.serve.service import Service

# One file each in serve/dialects/; `nemo_gym` is mounted at /nemo-gym.
DIALECTS = ("vllm", "sglang", "tei", "jina", "infinity", "openrlhf", "slime", "nemo_gym", "kserve")


def create_app(service: Service, dialect: str | None = None) -> FastAPI:
    """The application around a service; `dialect` names the one that also answers at the root."""
    app = FastAPI(title="Guerdon")
    for name in DIALECTS:
        found = f"guerdon.serve.dialects.{name}"
        if importlib.util.find_spec("guerdon.serve.dialects") and importlib.util.find_spec(found):
            module: Any = importlib.import_module(found)
            routes: list[BaseRoute] = module.routes(service)
            app.router.routes.append(Mount("/" + name.replace("_", "-"), routes=routes))
            if dialect == name:
                app.router.routes.extend(routes)
    return app
