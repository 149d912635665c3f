"""Programs that exist call the server with their own code: OpenRLHF, verl, TRL, and the clients of Cohere, LiteLLM, KServe and the hub.

Real code of openrlhf 0.11.2, verl 0.9.1, trl 1.16 through `guerdon.adapters.trl`, cohere 7.3.1, litellm 1.110.2, kserve 0.21.0 and
huggingface_hub; of slime the call, which is a few lines. What they import and do not run here (ray, vllm and the like) are mocks.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dialect_server import ANSWERS, BROKEN, PROMPT, TALKS, causal, encoder, serving  # noqa: F401
from tiny_models import chat

from guerdon.adapters.trl import reward_func
from guerdon.client import Client
from guerdon.model.reward import RewardModel
from guerdon.serve.dialects.wire import sigmoid
from tests.adapters.consumers import FOLDER, consumers

OPENRLHF_MOCKS = ("ray", "vllm", "deepspeed", "flash_attn", "torchdata", "pylatexenc")


class Engine:
    """What OpenRLHF expects of an inference engine, with the answers decided beforehand."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        ids = self.tokenizer(sampling_params.answer, add_special_tokens=False)["input_ids"]
        ids += [self.tokenizer.eos_token_id] if sampling_params.answer else []
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, text="", finish_reason="stop", logprobs=None)])


def openrlhf_samples(urls, tokenizer, prompt, answers):
    """OpenRLHF's executor answers the prompt, asks for rewards, and makes its samples of them."""
    agent = importlib.import_module("openrlhf.utils.agent")
    generator = importlib.import_module("openrlhf.trainer.ppo_utils.samples_generator").SamplesGenerator
    executor, maker = agent.SingleTurnAgentExecutor(urls), generator.__new__(generator)

    async def run():
        return await asyncio.gather(*(
            executor.execute(prompt, "", SimpleNamespace(max_tokens=64, logprobs=None, answer=answer), 256, tokenizer, Engine(tokenizer))
            for answer in answers
        ))  # fmt: skip

    return [maker._process_response_into_experience(found, max_len=256) for found in asyncio.run(run())]


def test_openrlhf_gets_its_rewards(causal):  # noqa: F811
    tokenizer = causal.model.encoder.tokenizer
    with consumers("openrlhf", *OPENRLHF_MOCKS):
        samples = openrlhf_samples([causal.url + "/openrlhf/get_reward"] * 2, tokenizer, causal.asked, ANSWERS)
        rewards = torch.cat([sample.rewards for sample in samples]).reshape(-1).tolist()
        filtered = torch.cat([sample.scores for sample in samples]).reshape(-1).tolist()
        assert rewards == pytest.approx(causal.scores, abs=1e-6)
        assert filtered == pytest.approx(list(map(sigmoid, causal.scores)), abs=1e-6)
        assert [sample.info["guerdon_truncated"].item() for sample in samples] == [0.0] * 5


def test_openrlhf_has_no_reward_for_what_cannot_be_scored(causal):  # noqa: F811
    with consumers("openrlhf", *OPENRLHF_MOCKS):
        (sample,) = openrlhf_samples([causal.url + "/openrlhf/get_reward"], causal.model.encoder.tokenizer, " ", [""])
        assert (sample.rewards, sample.scores) == (None, None)


def test_openrlhfs_older_clients_send_empty_lists(causal):  # noqa: F811
    """Up to 0.10 a query for the first of several servers went with empty lists to the others."""
    reply = causal.post("/openrlhf/get_reward", {"query": [], "prompts": [], "labels": []})
    assert (reply.status_code, reply.json()["rewards"], reply.json()["scores"]) == (200, [], [])


def verl_config(folder, engine):
    from omegaconf import OmegaConf

    reward = {
        "num_workers": 1,
        "custom_reward_function": {"path": None, "name": None},
        "reward_manager": {"source": "register", "name": "naive", "module": {"path": None}},
        "reward_model": {"enable": True, "model_path": str(folder), "rollout": {"name": engine}},
    }
    policy = {"actor_rollout_ref": {"model": {"path": str(folder), "tokenizer_path": None}}}
    return OmegaConf.create(policy | {"reward": reward})


def verl_batch(verl, tokenizer):
    """`TALKS` as verl's rollouts hold them: prompts padded on the left, answers that end on EOS on the right."""
    prompts = [tokenizer.apply_chat_template(t[:1], add_generation_prompt=True)["input_ids"] for t in TALKS]
    answers = [[*tokenizer(a, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for a in ANSWERS]
    pad, right = tokenizer.pad_token_id, max(map(len, answers)) + 2
    masks = [[1] * (len(p) + len(a)) + [0] * (right - len(a)) for p, a in zip(prompts, answers, strict=True)]
    tensors = {
        "prompts": torch.tensor(prompts),
        "responses": torch.tensor([a + [pad] * (right - len(a)) for a in answers]),
        "attention_mask": torch.tensor(masks),
    }
    raw = np.empty(len(TALKS), dtype=object)
    raw[:] = [talk[:1] for talk in TALKS]
    return verl.DataProto.from_dict(tensors=tensors, non_tensors={"raw_prompt": raw})


@pytest.mark.parametrize(("engine", "dialect", "path"), [("vllm", None, "/vllm"), ("sglang", None, "/sglang"), ("vllm", "vllm", ""), ("sglang", "sglang", "")])  # fmt: skip
def test_verls_reward_loop_gets_its_rewards(causal, engine, dialect, path):  # noqa: F811
    """Its discriminative path, which calls an engine that serves the reward model under the name of its folder."""
    with (
        consumers("verl", "ray"),
        serving({str(causal.folder): causal.model}, **({"dialect": dialect} if dialect else {})) as url,
    ):
        verl = importlib.import_module("verl")
        worker = importlib.import_module("verl.experimental.reward_loop.reward_loop").RewardLoopWorker
        data = verl_batch(verl, causal.model.encoder.tokenizer)

        async def run():
            address = url.removeprefix("http://") + path
            return await worker(verl_config(causal.folder, engine), address).compute_score_batch(data)

        rewards = [found["reward_score"] for found in asyncio.run(run())]
    assert rewards == pytest.approx(causal.scores, abs=1e-6)


@pytest.mark.parametrize("which", ["causal", "encoder"])
def test_trl_gets_its_rewards(which, request):
    live = request.getfixturevalue(which)
    function = reward_func(Client(live.url, batch=2))
    prompts, completions = [talk[:1] for talk in TALKS], [talk[1:] for talk in TALKS]
    assert asyncio.run(function(prompts=prompts, completions=completions)) == pytest.approx(live.scores, abs=1e-6)
    broken = asyncio.run(function(prompts=prompts[:1] * 2, completions=[chat("", BROKEN)[1:], completions[1]]))
    assert broken == [None, pytest.approx(live.scores[1], abs=1e-6)]


@pytest.mark.parametrize("version", [1, 2])
def test_coheres_client_ranks(encoder, version):  # noqa: F811
    expected = sorted(range(5), key=lambda i: -encoder.scores[i])
    with consumers("cohere", "fastavro"):
        cohere = importlib.import_module("cohere")
        client = (cohere.Client if version == 1 else cohere.ClientV2)(api_key="none", base_url=encoder.url + "/jina")
        found = client.rerank(model="encoder", query=PROMPT, documents=ANSWERS, top_n=3)
        assert [row.index for row in found.results] == expected[:3]
        values = [row.relevance_score for row in found.results]
        assert values == pytest.approx([sigmoid(encoder.scores[i]) for i in expected[:3]], abs=1e-6)
        assert found.meta.billed_units.search_units == 1
        whole = client.rerank(
            model="encoder", query=PROMPT, documents=ANSWERS, request_options={"additional_body_parameters": {"raw_scores": True}}
        )  # fmt: skip
        assert [row.relevance_score for row in whole.results] == pytest.approx(
            [encoder.scores[i] for i in expected], abs=1e-6
        )
        with pytest.raises(cohere.NotFoundError, match="there is no model"):
            client.rerank(model="rerank-v3.5", query=PROMPT, documents=ANSWERS)


def test_coheres_client_is_told_which_document_is_too_long(encoder):  # noqa: F811
    strict = RewardModel.load(encoder.folder, max_length=40, truncation="error")
    with consumers("cohere", "fastavro"), serving({"encoder": strict}) as url:
        cohere = importlib.import_module("cohere")
        client = cohere.ClientV2(api_key="none", base_url=url + "/jina")
        with pytest.raises(cohere.UnprocessableEntityError, match="document 1 cannot be scored: the conversation has"):
            client.rerank(model="encoder", query=PROMPT, documents=["fine", "the lazy dog " * 30])


def test_litellm_ranks(encoder, tmp_path):  # noqa: F811
    """By the providers that have a dialect here; that of Jina replaces the path it is given."""
    if not (FOLDER / "litellm").is_dir():
        pytest.skip(f"litellm is not installed in {FOLDER}; run: make setup")
    (tmp_path / "asked.json").write_text(json.dumps({"query": PROMPT, "documents": ANSWERS}))
    with serving({"encoder": encoder.model}, dialect="jina") as url:
        command = [sys.executable, str(Path(__file__).parent / "litellm_caller.py"), url, str(tmp_path / "asked.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    expected = sorted(range(5), key=lambda i: -encoder.scores[i])
    assert len(said["found"]) == 5
    for provider, rows in said["found"].items():
        assert [row["index"] for row in rows] == expected, provider
        values = [row["relevance_score"] for row in rows]
        assert values == pytest.approx([sigmoid(encoder.scores[i]) for i in expected], abs=1e-6), provider
    assert "there is no model" in said["error"]


KSERVE_MOCKS = "ray kubernetes kubernetes_asyncio cloudevents tabulate timing_asgi tritonclient six grpc_interceptor grpc_health grpc_tools".split()


def test_kserves_client_infers(causal):  # noqa: F811
    instances = [{"messages": talk} for talk in TALKS[:4]] + [
        {"messages": [{"role": "wizard", "content": "abracadabra"}]}
    ]
    with consumers("kserve", *KSERVE_MOCKS):
        kserve = importlib.import_module("kserve")
        tensor = kserve.InferInput("text", [5], "BYTES", data=causal.texts)
        request = kserve.InferRequest("causal", [tensor], request_id="r1")
        one, two = (kserve.InferenceRESTClient(kserve.RESTConfig(protocol=version)) for version in ("v1", "v2"))
        base = causal.url + "/kserve"

        async def run():
            alive = [await one.is_server_live(base), await two.is_server_live(base), await two.is_server_ready(base)]
            ready = [await client.is_model_ready(base, "causal") for client in (one, two)]
            first = await one.infer(base, {"instances": instances}, model_name="causal")
            second = await two.infer(base, request, model_name="causal")
            missing = await two.is_model_ready(base, "nobody")
            await one.close()
            await two.close()
            return alive, ready, first, second, missing

        alive, ready, first, second, missing = asyncio.run(run())
        assert (alive, ready, missing) == ([True] * 3, [True] * 2, False)
        assert first["predictions"] == [*(pytest.approx(score, abs=1e-6) for score in causal.scores[:4]), None]
        assert second.outputs[0].data == pytest.approx(causal.scores, abs=1e-6)
        assert (second.id, second.model_name, second.outputs[0].datatype) == ("r1", "causal", "FP32")


def test_the_hubs_client_classifies(causal, monkeypatch):  # noqa: F811
    from huggingface_hub import InferenceClient, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # which the tests set, and which holds for any address
    monkeypatch.setattr("huggingface_hub.utils._http.constants.HF_HUB_OFFLINE", False)

    found = InferenceClient().text_classification(causal.texts[0], model=causal.url + "/tei/predict")
    assert (found.label, found.score) == ("LABEL_0", pytest.approx(sigmoid(causal.scores[0]), abs=1e-6))


@pytest.mark.parametrize("path", ["/slime", "/slime/", "/slime/score"])
def test_slimes_call(causal, path):  # noqa: F811
    """One session for all samples, an object per sample, the JSON of the reply is the reward (or holds it under a key)."""
    with consumers("aiohttp"):
        import aiohttp

        async def remote(session, talk):
            payload = {"prompt": causal.asked, "response": talk[1]["content"], "label": None}
            async with session.post(causal.url + path, json=payload) as reply:
                reply.raise_for_status()
                return await reply.json()

        async def run():
            async with aiohttp.ClientSession() as session:
                return await asyncio.gather(*(remote(session, talk) for talk in TALKS))

        rewards = asyncio.run(run())
    rewards = [reward["score"] if path.endswith("score") else reward for reward in rewards]
    assert rewards == pytest.approx(causal.scores, abs=1e-6)
    unscored = causal.post(path, {"prompt": " ", "response": BROKEN}).json()
    assert (unscored["score"] if path.endswith("score") else unscored) is None
