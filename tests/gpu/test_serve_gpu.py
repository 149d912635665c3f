"""The server on CUDA: concurrent mixed requests score as the model does, with two batches under way."""

from __future__ import annotations

import asyncio

import pytest
import torch
from conftest import chat

from guerdon.model.reward import RewardModel
from guerdon.serve.call import Call, Item
from guerdon.serve.config import ServeConfig
from guerdon.serve.service import Service

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("name", ["qwen3", "bert"])
def test_concurrent_requests_score_as_the_model_does(make_backbone, tmp_path, name):
    model = RewardModel.load(make_backbone(tmp_path, name), device="cuda")
    talks = [chat(f"hello {i % 5} " * (i % 5 + 1), f"answer {i} " * (i % 7 + 1)) for i in range(60)]
    wanted = model.score(talks)

    async def go() -> None:
        service = Service({"rm": model}, ServeConfig(batch_tokens=500))
        assert service.engine._workers == 2
        found = await asyncio.gather(*(service.score([Item(messages=talk)], Call()) for talk in talks))
        assert [score for [score] in found] == pytest.approx(wanted, abs=1e-4)
        service.close()

    asyncio.run(go())
