"""Two reward servers on free ports, one with a tiny decoder and one with a tiny encoder, as the dialects' tests call them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
import uvicorn
from tiny_models import CHAT_TEMPLATE, chat

from guerdon.model.head import final_layers
from guerdon.model.reward import RewardModel
from guerdon.serve.app import create_app
from guerdon.serve.service import Service

PROMPT = "hello world, how are you?"
ANSWERS = ["the quick brown fox", "fine", "jumps over the lazy dog", "ünïcode 🦊 \n\n", "today? " * 12]
TALKS = [chat(PROMPT, answer) for answer in ANSWERS]
BROKEN = "half of a pair: \ud800"  # no text: what holds it cannot be scored


@dataclass(frozen=True)
class Live:
    """A server that runs: where, and the model behind it."""

    url: str
    name: str
    model: RewardModel
    folder: Path

    def post(self, path: str, body: Any, **options: Any) -> httpx2.Response:
        content = json.dumps(body)  # ASCII, so that half of a surrogate pair can be sent too
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        return httpx2.post(self.url + path, content=content, headers=headers, timeout=30, **options)

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=30)

    @property
    def scores(self) -> list[float]:
        """Rewards of `TALKS`, straight from the model."""
        return list(map(float, self.model.score(TALKS)))

    @property
    def texts(self) -> list[str]:
        """`TALKS` as the chat template writes them."""
        return [self.model.encoder.render(talk) for talk in TALKS]

    @property
    def ids(self) -> list[list[int]]:
        return [list(encoded.ids) for encoded in self.model.encoder(TALKS)]

    @property
    def asked(self) -> str:
        """The prompt of `TALKS` as the chat template writes it when it asks for an answer."""
        tokenizer = self.model.encoder.tokenizer
        return tokenizer.apply_chat_template(chat(PROMPT), tokenize=False, add_generation_prompt=True)


@contextlib.contextmanager
def serving(models: dict[str, Any], watch: Any = None, **options: Any) -> Iterator[str]:
    """The address of a server of these models that runs in a thread until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Service(models)
    service.watch = watch
    app = create_app(service, **options)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def load(folder: Path, template: str | None = None) -> RewardModel:
    """The backbone in the folder as a reward model with a contract, whose rewards lie around 1: float32 has seven digits."""
    from transformers import AutoTokenizer

    if template:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    model = RewardModel.load(folder)
    largest = max(map(abs, model.score(TALKS)))
    with torch.no_grad():
        for _, _, layer in final_layers(model.net):
            layer.weight.div_(largest)
    model.save(folder.parent / f"{folder.name}-rm")
    return RewardModel.load(folder.parent / f"{folder.name}-rm")


@pytest.fixture(scope="module")
def causal(make_backbone, tmp_path_factory) -> Iterator[Live]:
    """A decoder whose chat template asks for an answer in its own way."""
    folder = make_backbone(tmp_path_factory.mktemp("models") / "causal", "qwen3")
    model = load(folder, CHAT_TEMPLATE)
    with serving({"causal": model}) as url:
        yield Live(url, "causal", model, folder.parent / "causal-rm")


@pytest.fixture(scope="module")
def encoder(make_backbone, tmp_path_factory) -> Iterator[Live]:
    """An encoder with the plain template."""
    folder = make_backbone(tmp_path_factory.mktemp("models") / "encoder", "bert")
    model = load(folder)
    with serving({"encoder": model}) as url:
        yield Live(url, "encoder", model, folder.parent / "encoder-rm")
