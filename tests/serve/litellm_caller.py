"""Ranks by LiteLLM's own code, in a process of its own: it puts a filter on the logging of whatever process imports it.

    python tests/serve/litellm_caller.py URL REQUEST.json

Prints JSON: what each provider found, and the name of the error for a model that is not there.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.adapters.consumers import consumers

MOCKS = "boto3 botocore distro dotenv fastuuid h2 jiter jsonschema pydantic_settings sniffio tiktoken".split()
PLACES = {"cohere": "/jina", "hosted_vllm": "/vllm", "infinity": "/infinity", "huggingface": "/tei", "jina_ai": ""}


def main(url: str, asked: dict) -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # which it would fetch
    with consumers("litellm", *MOCKS):
        litellm = importlib.import_module("litellm")
        found = {
            provider: litellm.rerank(model=f"{provider}/encoder", api_base=url + path, api_key="none", **asked).results
            for provider, path in PLACES.items()
        }
        try:
            litellm.rerank(model="cohere/rerank-v3.5", api_base=f"{url}/jina", api_key="none", **asked)
            error = "none"
        except litellm.NotFoundError as missing:
            error = str(missing)
    print(json.dumps({"found": found, "error": error}))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
