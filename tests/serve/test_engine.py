"""Batches: equal to the model itself for any mixture of callers, gathered while the worker is busy, dropped when unwanted."""

from __future__ import annotations

import asyncio
import random
import statistics
import time

import pytest
from serving import Letters, service_of, settled, talk, value_of
from tiny_models import chat

from guerdon.model.ensemble import Ensemble
from guerdon.model.reward import RewardModel
from guerdon.serve.call import Call, Item, Refused
from guerdon.serve.config import ServeConfig
from guerdon.serve.service import Service
from guerdon.types import Score


def texts(*words: str) -> list[Item]:
    return [Item(text=word) for word in words]


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "bert", "both"])
def test_any_mixture_of_concurrent_requests_scores_as_the_model_does(make_backbone, tmp_path, kind, sharing):
    names = ("qwen3", "llama") if kind == "both" else (kind,)
    models = [RewardModel.load(make_backbone(tmp_path / name, name)) for name in names]
    model = Ensemble(models) if kind == "both" else models[0]
    talks = [chat(f"hello {i % 5} " * (i % 5 + 1), f"answer {i} " * (i % 7 + 1)) for i in range(40)]
    wanted = model.score(talks)
    assert statistics.stdev(wanted) > 1e-3  # equality to 1e-6 means something
    encoder = models[0].encoder
    kinds = [
        lambda t: Item(messages=t),
        lambda t: Item(text=encoder.render(t)),
        lambda t: Item(ids=encoder([t])[0].ids),
    ]
    generator = random.Random(0)

    async def go() -> None:
        service = Service({"rm": model}, ServeConfig(batch_tokens=300, row_tokens=150, sharing=sharing))

        async def one(places: list[int]) -> None:
            items = [generator.choice(kinds)(talks[place]) for place in places]
            scores = await service.score(items, Call(key=generator.choice("ab")))
            assert scores == pytest.approx([wanted[place] for place in places], abs=1e-6, rel=1e-6)
            assert [score.tokens for score in scores] == [wanted[place].tokens for place in places]

        requests = [generator.sample(range(40), generator.choice((1, 1, 1, 2, 8))) for _ in range(60)]
        await asyncio.gather(*map(one, requests))
        service.close()

    asyncio.run(go())


def test_completions_of_single_callers_share_their_prompt(make_backbone, tmp_path):
    async def computed(sharing: bool) -> float:
        service = Service(
            {"rm": RewardModel.load(make_backbone(tmp_path / str(sharing)))}, ServeConfig(sharing=sharing)
        )
        calls = [service.score([Item(messages=chat("hello " * 60, f"answer {i}"))], Call()) for i in range(9)]
        await asyncio.gather(*calls)
        await settled(lambda: service.loaded(None).running == 0)  # counted when the batch is over
        service.close()
        return service.metrics.registry.get_sample_value("guerdon_computed_tokens_total", {"model": "rm"})

    assert asyncio.run(computed(True)) < 0.5 * asyncio.run(computed(False))


def test_single_callers_are_gathered_while_the_worker_is_busy():
    async def go() -> None:
        model = Letters()
        service = service_of(model)
        model.gate.clear()
        first = asyncio.create_task(service.score(texts("first"), Call()))
        await settled(lambda: len(model.batches) == 1)
        rest = [asyncio.create_task(service.score(texts(f"w{i}"), Call())) for i in range(20)]
        await settled(lambda: service.loaded(None).queue.tokens >= 20)
        model.gate.set()
        assert [score for [score] in await asyncio.gather(first, *rest)][1:] == [value_of(f"w{i}") for i in range(20)]
        assert [len(batch) for batch in model.batches] == [1, 20]

    asyncio.run(go())


def test_an_idle_server_does_not_wait_for_company():
    async def go() -> None:
        service, seconds = service_of(), []
        for _ in range(100):
            started = time.perf_counter()
            await service.score(texts("x"), Call())
            seconds.append(time.perf_counter() - started)
        assert statistics.median(seconds) < 0.005

    asyncio.run(go())


def test_an_eval_burst_does_not_starve_training():
    async def go() -> None:
        model = Letters()
        service = service_of(model, batch_tokens=2000)
        model.gate.clear()
        done: list[str] = []

        async def ask(who: str, items: list[Item]) -> None:
            await service.score(items, Call(key=who))
            done.append(who)

        burst = [asyncio.create_task(ask("eval", texts(*["e" * 300] * 10))) for _ in range(30)]
        await settled(lambda: len(model.batches) == 1)
        train = [asyncio.create_task(ask("train", texts("t" * 300))) for _ in range(10)]
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(*burst, *train)
        assert [who for who in done[:16] if who == "train"] == ["train"] * 10

    asyncio.run(go())


def test_past_its_deadline_a_request_is_answered_and_what_waits_is_not_scored():
    async def go() -> None:
        model = Letters()
        service = service_of(model)
        model.gate.clear()
        first = asyncio.create_task(service.score(texts("first"), Call()))
        await settled(lambda: len(model.batches) == 1)
        with pytest.raises(Refused) as refused:
            await service.score(texts("late", "later"), Call(deadline=time.monotonic() + 0.05))
        assert (refused.value.status, refused.value.kind) == (504, "deadline")
        assert service.loaded(None).queue.tokens == 0
        model.gate.set()
        await first
        await service.score(texts("next"), Call(deadline=time.monotonic() + 10))
        assert model.scored == ["first", "next"]
        assert service.metrics.registry.get_sample_value("guerdon_dropped_items_total") == 2

    asyncio.run(go())


def test_what_a_caller_that_left_had_waiting_is_not_scored():
    async def go() -> None:
        model = Letters()
        service = service_of(model)
        model.gate.clear()
        first = asyncio.create_task(service.score(texts("first"), Call()))
        await settled(lambda: len(model.batches) == 1)
        gone = asyncio.create_task(service.score(texts("gone"), Call()))
        await settled(lambda: service.loaded(None).queue.tokens > 0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        model.gate.set()
        await first
        await service.score(texts("next"), Call())
        assert model.scored == ["first", "next"]

    asyncio.run(go())


def test_a_full_queue_refuses_with_the_time_it_takes_to_drain():
    async def go() -> None:
        model = Letters()
        service = service_of(model, queue_tokens=900)
        model.gate.clear()
        service.loaded(None).rate = 10.0
        waiting = [asyncio.create_task(service.score(texts("x" * 300), Call(key="a"))) for _ in range(7)]
        await settled(lambda: service.loaded(None).queue.tokens > 500)
        with pytest.raises(Refused) as refused:
            await service.score(texts("x" * 300), Call(key="a"))
        loaded = service.loaded(None)
        assert refused.value.status == 429
        assert refused.value.retry_after == pytest.approx((loaded.queue.tokens + loaded.running) / 10.0)
        other = asyncio.create_task(service.score(texts("y" * 200), Call(key="b")))
        await asyncio.sleep(0.01)
        assert not other.done()
        model.gate.set()
        assert len(await asyncio.gather(*waiting, other)) == 8

    asyncio.run(go())


def test_one_bad_item_fails_alone():
    def mishap(text: str) -> None:
        if text == "bad":
            raise ValueError("no")

    async def go() -> None:
        model = Letters(mishap=mishap)
        service = service_of(model)
        good, bad, also = await service.score([*texts("good", "bad"), Item(messages=talk("also"))], Call())
        assert (good, also) == (value_of("good"), value_of("also"))
        assert (bad.status, bad.reason) == ("error", "scoring failed; the log of the server says why")
        [odd] = await service.score([Item(messages=[{}])], Call())
        assert odd.status == "error"

    asyncio.run(go())


def test_members_make_the_reward_that_a_request_asks_for(make_backbone, tmp_path):
    models = [RewardModel.load(make_backbone(tmp_path / name, name)) for name in ("qwen3", "llama")]

    async def go() -> None:
        service = Service({"rm": Ensemble(models)})
        item = [Item(messages=chat("hello", "world"))]
        mean, low = [await service.score(item, Call(reward=rule)) for rule in ("mean", "min")]
        one, two = sorted(mean[0].members)
        assert mean[0] == pytest.approx((one + two) / 2)
        assert low[0] == one
        lcb = (await service.score(item, Call(reward="mean-std:2")))[0]
        assert lcb == pytest.approx(mean[0].mean - 2 * mean[0].std)
        with pytest.raises(Refused, match="not known"):
            await service.score(item, Call(reward="median"))
        single = Service({"rm": models[0]})
        with pytest.raises(Refused, match="single reward model"):
            await single.score(item, Call(reward="min"))
        assert isinstance((await single.score(item, Call(reward="mean")))[0], Score)

    asyncio.run(go())
