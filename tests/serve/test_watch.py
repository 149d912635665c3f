"""Runs seen through the server: statistics against numbers worked out by hand, restarts, bounds, and the monitor's own verdicts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import time

import numpy as np
import pytest
from serving import client_of, service_of
from tiny_models import chat
from tokenizers import Tokenizer as Model
from tokenizers.models import WordLevel

from guerdon.diagnose.monitor import Monitor, Observation, Settings
from guerdon.diagnose.novelty import Novelty
from guerdon.serve import run_record, watch
from guerdon.serve.answers import Answers
from guerdon.serve.call import Call, Item, Refused, Served
from guerdon.serve.run_page import run_page, runs_page
from guerdon.serve.run_record import NOTHING_YET, path_of
from guerdon.serve.run_routes import run_routes
from guerdon.serve.run_svg import Line, Mark, chart
from guerdon.serve.watch import Watch, WatchOptions, watch_of
from guerdon.types import ConfigError, Score

KEPT = {"grace": 0.0}


class Fake:
    """A service whose held-out score is the number of words, without tokenizers."""

    def __init__(self):
        self.asked, self.refuses = [], None

    def model(self, name):
        if name not in (None, "rm", "second"):
            raise Refused(404, f"there is no model '{name}' here", kind="model")
        return Served(name or "rm", f"print-{name}", "hash", 512, None)

    async def score(self, items, call):
        self.asked.append((call, list(items)))
        if self.refuses:
            raise self.refuses
        return [Score(float(len(item.messages[-1]["content"].split()))) for item in items]


def items_of(*texts, prompt="q"):
    return [Item(messages=chat(prompt, text)) for text in texts]


def run_watch(story, service=None, **options):
    """Play `story(watch)` in an event loop, with the watch started and stopped around it."""

    async def play():
        made = Watch(service or Fake(), WatchOptions(**KEPT | options), seed=b"1")
        made.start()
        try:
            return await story(made)
        finally:
            await asyncio.to_thread(made.stop)

    return asyncio.run(play())


def series_of(view, name):
    return view["series"][name]


def test_a_step_by_hand():
    async def story(seen):
        call = Call(run="r", step=3, kl=(2.0, 4.0, 6.0))
        scores = [Score(1.0, members=(0.5, 1.5)), Score(3.0, members=(2.0, 4.0)), Score(0, "error", reason="no")]
        seen.seen(call, items_of("one two", "- a list of **bold** words", "lost"), scores)
        call = Call(run="r", step=3)
        seen.seen(call, items_of("a b c d a b c d", prompt="p"), [Score(5.0)])
        seen.seen(call, items_of("held back", prompt="p"), [Score(0, "masked")])
        return await seen.close_step("r", 3), await seen.view("r")

    summary, view = run_watch(story)
    assert (summary["step"], summary["steps"], summary["status"]) == (3, 1, "ok")
    row = {name: values[-1] for name, values in view["series"].items()}
    assert (row["samples"], row["masked"], row["errors"]) == (5, 1, 1)
    assert row["proxy"] == pytest.approx(3.0)
    assert row["proxy_std"] == pytest.approx(statistics.pstdev([1, 3, 5]))
    assert row["within_std"] == pytest.approx(statistics.stdev([1, 3]))  # prompt p has one reward only
    assert row["disagreement"] == pytest.approx((0.5 + 1.0) / 2)
    assert row["kl"] == pytest.approx(4.0)
    assert row["sqrt_kl"] == pytest.approx(2.0)
    assert (row["list_rate"], row["bold_rate"]) == (1 / 5, 1 / 5)
    assert row["words"] == pytest.approx((2 + 6 + 1 + 8 + 2) / 5)
    assert row["repetition"] == pytest.approx((1 - 4 / 5) / 5)  # five runs of four words, four of them different
    assert row["held_out"] is None
    assert row["length"] is None  # there is no tokenizer to count with
    assert view["counts"] == {"ok": 3, "masked": 1, "error": 1}
    assert view["models"] == ["rm mean"]


def test_a_step_is_closed_when_the_next_begins_and_not_before():
    async def story(seen):
        seen.seen(Call(run="r", step=1), items_of("a"), [Score(1.0)])
        before = await seen.view("r")
        seen.seen(Call(run="r", step=2), items_of("a"), [Score(2.0)])
        after = await seen.view("r")
        seen.seen(Call(run="r", step=1), items_of("a"), [Score(9.0)])
        seen.seen(Call(run="r"), items_of("a"), [Score(9.0)])
        return before, after, await seen.view("r")

    before, after, late = run_watch(story)
    assert (before["step"], before["reason"], before["open"]) == (None, NOTHING_YET, {"step": 1, "samples": 1})
    assert (after["step"], after["open"]) == (1, {"step": 2, "samples": 1})
    assert series_of(late, "proxy") == [1.0]
    assert (late["counts"]["late"], late["counts"]["without_step"]) == (1, 1)


def test_samples_of_a_step_may_come_in_while_the_next_begins():
    async def story(seen):
        seen.seen(Call(run="r", step=1), items_of("a"), [Score(1.0)])
        seen.seen(Call(run="r", step=2), items_of("a"), [Score(5.0)])
        seen.seen(Call(run="r", step=1), items_of("a"), [Score(3.0)])
        before = await seen.view("r")
        await asyncio.sleep(0.3)
        return before, await seen.view("r")

    before, after = run_watch(story, grace=0.25)
    assert before["steps"] == 0
    assert series_of(after, "proxy") == [2.0]
    assert "late" not in after["counts"]


def test_calls_without_a_run_are_passed_over():
    async def story(seen):
        seen.seen(Call(step=1), items_of("a"), [Score(1.0)])
        seen.seen(Call(run="r", step=1), [], [])
        return await seen.summaries(), await seen.view("r"), await seen.close_step("r", 1)

    assert run_watch(story) == ([], None, None)


def test_the_verdicts_are_the_monitors():
    """A proxy that rises while held-out falls: the same words as from a monitor that is told the same numbers."""
    fake, told = Fake(), []

    async def story(seen):
        rng = np.random.default_rng(0)
        for step in range(60):
            gold = 12 - abs(step - 20) * 0.4 if step > 20 else 4 + 0.4 * step
            words = np.maximum(1, rng.normal(gold, 1.5, 16).round()).astype(int)
            for k, count in enumerate(words):
                reward = 0.1 * step + rng.normal(0, 0.1)
                told.append((step, float(count), reward, k // 2))
                item = items_of(" ".join(["w"] * count), prompt=f"{step} {k // 2}")
                seen.seen(Call(run="hack", step=step), item, [Score(reward)])
            last = await seen.close_step("hack", step, kl=0.5 * step)
        return last, await seen.view("hack")

    last, view = run_watch(story, fake, held_out="second", share=1.0, budget=64, steps=60)
    monitor = Monitor(Settings(steps=60, budget=64))
    said = []
    for step in range(60):
        rows = [row for row in told if row[0] == step]
        verdict = monitor.observe(
            Observation(
                step=step,
                kl=0.5 * step,
                proxy=float(np.mean([row[2] for row in rows])),
                held_out=[row[1] for row in rows],
                proxies=[row[2] for row in rows],
                prompts=[row[3] for row in rows],
                signals={"words": float(np.mean([row[1] for row in rows]))},
            )
        )
        said.append(verdict.status)
    assert view["series"]["status"] == said
    assert last["status"] == "stop"
    assert (last["best_step"], view["verdict"]["stopped_at"]) == (verdict.best_step, verdict.stopped_at)
    assert view["series"]["held_out_n"] == [16.0] * 60
    assert all(call.model == "second" and call.run is None for call, _ in fake.asked)
    gap = view["series"]["gap"]
    assert sum(gap[:4]) == pytest.approx(0, abs=1e-9)
    assert gap[-1] > 1


def test_a_held_out_score_that_cannot_be_had_is_missing():
    fake = Fake()
    fake.refuses = Refused(429, "the queue is full", 1.0, kind="overloaded")

    async def story(seen):
        seen.seen(Call(run="r", step=1), items_of("a", "b"), [Score(1.0), Score(2.0)])
        await seen.close_step("r", 1)
        return await seen.view("r")

    view = run_watch(story, fake, held_out="second", share=1.0)
    assert series_of(view, "held_out") == [None]
    assert (series_of(view, "held_out_n"), series_of(view, "held_out_missing")) == ([0], [2])
    assert "There are no held-out scores" in view["reason"]


def test_whole_prompts_are_chosen_and_about_the_share():
    fake = Fake()

    async def story(seen):
        for prompt in range(400):
            for text in ("a", "b c", "d e f"):
                seen.seen(Call(run="r", step=1), items_of(text, prompt=f"p{prompt}"), [Score(1.0)])
        await seen.close_step("r", 1)

    run_watch(story, fake, held_out="second", share=0.2, budget=1000)
    prompts = [item.messages[0]["content"] for _, items in fake.asked for item in items]
    counts = {prompt: prompts.count(prompt) for prompt in prompts}
    assert set(counts.values()) == {3}
    assert 50 < len(counts) < 112  # 80 expected, SD 8


def test_the_budget_bounds_what_is_checked():
    fake = Fake()

    async def story(seen):
        for step in range(1, 4):
            for n in range(2000):
                seen.seen(Call(run="r", step=step), items_of("a", prompt=f"{step} {n}"), [Score(1.0)])
            await seen.close_step("r", step)
        return await seen.view("r")

    view = run_watch(story, fake, held_out="second", share=1.0, budget=20)
    first, *later = series_of(view, "held_out_n")
    assert first == 80  # nothing was known of the length of a step: four times the budget, and no more
    assert all(5 <= n <= 45 for n in later)  # 20 expected


def test_a_restart_goes_on_with_the_same_verdicts(tmp_path):
    async def samples(seen, steps):
        for step in steps:
            rng = np.random.default_rng(step)
            texts = [" ".join(["w"] * int(n)) for n in rng.integers(1, 30, 12)]
            scores = [Score(0.2 * step + float(rng.normal()), members=(0.0, 1.0)) for _ in texts]
            half = steps.stop == 26 and step == 25  # the server stops in the middle of this step
            rest = step == 25 and steps.start == 25
            part = slice(6) if half else slice(6, None) if rest else slice(None)
            seen.seen(Call(run="a/b ../c", step=step), items_of(*texts)[part], scores[part])
            if not half:
                await seen.close_step("a/b ../c", step)
        return await seen.view("a/b ../c")

    async def whole(seen):
        return await samples(seen, range(1, 40))

    async def first(seen):
        await samples(seen, range(1, 26))
        await asyncio.sleep(0.05)  # its held-out scores come in

    async def second(seen):
        return await samples(seen, range(25, 40))

    options = {"held_out": "second", "share": 0.5}
    expected = run_watch(whole, **options)
    run_watch(first, folder=tmp_path, **options)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "a%2Fb%20%2E%2E%2Fc.jsonl"}
    found = run_watch(second, folder=tmp_path, **options)
    assert expected["steps"] == 39
    for view in (expected, found):
        for name in ("started", "ended"):
            del view["series"][name]
        del view["seen"]
    assert found == expected


def test_kept_runs_are_listed_after_a_restart(tmp_path, monkeypatch, caplog):
    async def first(seen):
        for name in ("old", "a/b ../c", "new"):
            seen.seen(Call(run=name, step=1), items_of("a"), [Score(1.0)])
            await seen.close_step(name, 1)
            seen.seen(Call(run=name, step=2), items_of("a"), [Score(2.0)])
        return await seen.summaries()

    async def listed(seen):
        return await seen.summaries()

    expected = run_watch(first, folder=tmp_path)
    assert [run["run"] for run in expected] == ["new", "a/b ../c", "old"]
    for n, name in enumerate(("old", "a/b ../c", "new")):
        os.utime(path_of(tmp_path, name), (n, n))
    others = {
        "notes.jsonl": b'{"run": "new"',
        "rows.jsonl": b'{"version": 1, "run": "x"}\n{"torn',
        "plain.jsonl": b"1\n",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "later.jsonl").write_text('{"version": 99, "run": "later"}\n')
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run_watch(listed, folder=tmp_path) == expected
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept  # nothing written, others left alone
    assert "later.jsonl: is a run of version 99" in caplog.text
    monkeypatch.setattr(watch, "MOST_ROWS", 2)
    assert [run["run"] for run in run_watch(listed, folder=tmp_path)] == ["new", "a/b ../c"]


def test_a_torn_line_is_cut_off_and_the_rest_stays(tmp_path):
    async def story(seen):
        for step in (1, 2, 3, 4):
            seen.seen(Call(run="r", step=step), items_of("a"), [Score(float(step))])
        return await seen.view("r")

    run_watch(story, folder=tmp_path)
    path = path_of(tmp_path, "r")
    whole = path.read_bytes().splitlines(keepends=True)
    assert [("row" in json.loads(line), "open" in json.loads(line)) for line in whole[1:]] == [(True, False)] * 3 + [
        (False, True)
    ]
    path.write_bytes(b"".join(whole[:3]) + whole[3][:40])  # as kill -9 leaves it

    async def again(seen):
        seen.seen(Call(run="r", step=3), items_of("a"), [Score(7.0)])
        seen.seen(Call(run="r", step=4), items_of("a"), [Score(8.0)])
        return await seen.view("r")

    assert series_of(run_watch(again, folder=tmp_path), "proxy") == [1.0, 2.0, 7.0]


def test_two_servers_do_not_share_a_folder(tmp_path):
    async def story(seen):
        with pytest.raises(ConfigError, match="give each server a folder of its own"):
            Watch(Fake(), WatchOptions(folder=tmp_path)).start()

    run_watch(story, folder=tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".", "", "/", "a\x00b", "ü" * 200, "x" * 256, "\ud800"])
def test_whatever_a_run_is_called_its_file_lies_in_the_folder(tmp_path, name):
    try:
        path = path_of(tmp_path, name)
    except UnicodeEncodeError:
        return  # no such name can come out of JSON that was encoded
    assert path.parent == tmp_path
    path.touch()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_memory_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "MOST_RUNS", 3)
    monkeypatch.setattr(watch, "MOST_WAITING", 100)

    async def story(seen):
        for number in range(6):
            seen.seen(Call(run=f"r{number}", step=1), items_of("a"), [Score(1.0)])
            await seen.close_step(f"r{number}", 1)
        names = [run["run"] for run in await seen.summaries()]
        seen.seen(Call(run="r9", step=1), items_of("x" * 200), [Score(1.0)])
        return names, await seen.view("r0"), await seen.view("r9")

    names, forgotten, dropped = run_watch(story)
    assert names == ["r5", "r4", "r3"]
    assert forgotten is None
    assert dropped["counts"] == {"dropped": 1}
    _, kept, _ = run_watch(story, folder=tmp_path)
    assert kept["steps"] == 1


def test_a_run_is_watched_for_so_many_steps(monkeypatch):
    monkeypatch.setattr(run_record, "MOST_STEPS", 2)

    async def story(seen):
        for step in range(5):
            seen.seen(Call(run="r", step=step), items_of("a"), [Score(1.0)])
        return await seen.view("r")

    view = run_watch(story)
    assert (view["steps"], view["counts"]["unjudged"]) == (2, 2)
    assert "watched for 2 steps" in view["reason"]


def test_a_fault_does_not_end_the_watch(caplog):
    async def story(seen):
        seen.seen(Call(run="r", step=1), items_of("a", "b"), [Score(1.0)])  # lengths differ
        seen.seen(Call(run="r", step=1, model="gone"), items_of("a"), [Score(1.0)])
        seen.seen(Call(run="r", step=1), items_of("a"), [Score(1.0)])
        return await seen.view("r")

    assert run_watch(story)["counts"] == {"ok": 1}
    assert caplog.text.count("could not be taken into the statistics") == 2


def test_noting_a_call_takes_microseconds():
    async def story(seen):
        call, items, scores = Call(run="r", step=1), items_of("some words " * 50), [Score(1.0)]
        begun = time.perf_counter()
        for _ in range(200):
            seen.seen(call, items, scores)
        return (time.perf_counter() - begun) / 200

    assert run_watch(story) < 5e-4


def test_drift_is_what_novelty_measures():
    rng = np.random.default_rng(0)
    novelty = Novelty.fit(rng.normal(size=(400, 3)))
    features = rng.normal(2.0, 1.0, size=(8, 3)).astype(np.float32)

    async def story(seen):
        assert seen.wants_features("rm")
        assert not seen.wants_features("second")
        seen.seen(Call(run="r", step=1), items_of(*"abcdefgh"), [Score(1.0)] * 8, features)
        await seen.close_step("r", 1)
        return await seen.view("r")

    view = run_watch(story, novelty={"rm": novelty}.get)
    assert series_of(view, "drift")[0] == pytest.approx(novelty.distance(features.astype(np.float64)))
    assert series_of(view, "drift")[0] > 2


class Template:
    """A tokenizer with a chat template like ChatML, counting words."""

    eos_token, sep_token, pad_token = "<eos>", None, "<pad>"

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        text = "".join(f"<{turn['role']}>{turn['content']}<eos>" for turn in turns)
        return text + ("<assistant>" if add_generation_prompt else "")


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Item(messages=chat("q", "an answer")), "an answer"),
        (Item(text="<user>q<eos><assistant>an answer<eos>"), "an answer"),
        (Item(text="<user>q<eos><assistant>an answer<eos><pad><pad>\n"), "an answer"),
        (Item(text="<user>q<eos><assistant>old<eos><user>r<eos><assistant>new"), "new"),
        (Item(text="no template at all"), None),
        (Item(ids=(1, 2, 3)), None),
    ],
)
def test_the_answer_is_told_from_the_prompt_or_not_at_all(item, text):
    assert Answers(Template()).of(item).text == text


def test_equal_prompts_have_equal_numbers():
    answers = Answers(Template())
    one, two = answers.of(Item(text="<user>q<eos><assistant>a")), answers.of(Item(text="<user>q<eos><assistant>b c"))
    other = answers.of(Item(text="<user>r<eos><assistant>a"))
    assert one.prompt == two.prompt != other.prompt


@pytest.fixture(scope="module")
def gamed():
    """What is known of a run whose reward rises while its held-out scores fall from step 20 on."""

    async def story(seen):
        for step in range(60):
            words = max(1, 12 - abs(step - 20) // 2)
            call = Call(run="a-long-name/of-a-run-2026-11", step=step, kl=(step / 10.0,) * 8)
            texts = [" ".join(["w"] * (words + k % 3)) for k in range(8)]
            seen.seen(call, items_of(*texts), [Score(step / 10 + k / 100) for k in range(8)])
            await seen.close_step("a-long-name/of-a-run-2026-11", step)
        return await seen.view("a-long-name/of-a-run-2026-11"), await seen.summaries()

    return run_watch(story, held_out="second", share=1.0)


def test_the_page_says_what_was_held_out_by_what_was_scored(gamed):
    view, _ = gamed
    none = {name: [0 if name == "held_out_n" else None] * 60 for name in view["series"] if name.startswith("held_out")}
    bare = view | {"series": view["series"] | none, "status": "ok", "best_step": None}
    text = run_page(view, 0.0)
    assert f">Go back to step {view['best_step']}, after which" in text.replace(f"{view['reason']} ", ">")
    assert ("480 answers checked" in text, "No second model" in text) == (True, False)
    text = run_page(view | {"held_out": None}, 0.0)  # the server was started again without --held-out
    assert "480 answers checked" in text
    assert "No second model is asked any more" in text
    text = run_page(bare, 0.0)
    assert "second has scored none yet" in text
    assert "No second model is asked" not in text
    text = run_page(bare | {"held_out": None}, 0.0)
    assert ">no second model is asked<" in text
    assert "How does the reward move?" in text
    assert "go back to" not in run_page(view | {"status": "ok"}, 0.0)


def test_pages_fit_a_telephone(gamed):
    from tests.collect.browser import chromium

    view, runs = gamed
    with chromium() as browser:
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 800})
            for text in (run_page(view, 0.0), runs_page(runs, 0.0)):
                page.set_content(text)
                assert page.evaluate("document.documentElement.scrollWidth") == width
                edges = page.locator("svg:visible, td:visible").evaluate_all(
                    "all => all.map(one => [one.getBoundingClientRect().right, one.parentElement.getBoundingClientRect().right])"
                )
                assert edges
                assert all(right <= outer + 1 <= width for right, outer in edges)


def test_names_of_marks_are_not_crossed():
    marks = [Mark(19.0, "go back to", "accent"), Mark(25.0, "warning", "band"), Mark(26.0, "stop", "warm")]
    x = np.arange(60.0)
    for width in (410, 840):
        svg = chart("", [Line("reward", x, x, "warm")], width=width, marks=marks)
        names = re.findall(
            r'<text x="([\d.]+)" y="([\d.]+)" fill="[^"]+" text-anchor="start">(go back to|warning|stop)<', svg
        )
        assert {name for *_, name in names} == {"go back to", "warning", "stop"}
        lines = re.findall(r'M([\d.]+) ([\d.]+)V\d+" stroke="[^"]+" stroke-dasharray="3 2"', svg)
        for left, y, name in names:
            reach = (float(left), float(left) + 6.2 * len(name))
            assert not [x for x, top in lines if reach[0] < float(x) < reach[1] and float(top) <= float(y)]


def test_the_page_escapes_runs_alone_and_fetches_nothing():
    async def story(seen):
        name = "<script>alert(1)</script>"
        for step in range(30):
            rng = np.random.default_rng(step)
            texts = [f"{'w ' * int(n)}" for n in rng.integers(1, 9, 6)]
            seen.seen(Call(run=name, step=step), items_of(*texts), [Score(float(rng.normal())) for _ in texts])
            await seen.close_step(name, step)  # its held-out scores have come
        return await seen.view(name), await seen.summaries()

    view, runs = run_watch(story, held_out="second", share=1.0)
    empty = {**view, "steps": 0, "step": None, "verdict": None, "series": {"status": []}, "counts": {}, "seen": None}
    for page in (
        run_page(view, view["seen"] + 7),
        runs_page(runs, time.time()),
        runs_page([], 0.0),
        run_page(empty, 0.0),
    ):
        assert "<script" not in page
        assert "default-src 'none'" in page
        assert '<meta http-equiv="refresh" content="5">' in page
        assert "src=" not in page
        assert "url(" not in page
        assert "NaN" not in page
        assert "nan" not in page.replace("finance", "")
    text = run_page(view, view["seen"] + 7)
    said = f'class="verdict {view["status"]}"'
    assert text.index(said) < text.index("Does held-out follow") < text.index("What is the policy doing?")
    assert "√KL" not in text  # never sent, so never drawn
    assert "not sent by the client" in text
    assert "7 s ago" in text


MALFORMED = [{"role": "user", "content": None}, {"role": "user"}, {"role": "user", "content": 1}, "a", None, {}]


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_message_costs_no_other_its_score_and_is_counted(message):
    async def go():
        service = service_of()
        with watch_of(service) as seen:
            async with client_of(service, routes=run_routes(seen)) as client:
                body = {"conversations": [chat("hi", "b"), [message]], "run": "r", "step": 0}
                reply = await client.post("/v1/score", json=body)
                return reply, (await client.get("/runs/r")).json()

    reply, view = asyncio.run(go())
    assert [score["status"] for score in reply.json()["scores"]] == ["ok", "error"]
    assert view["counts"] == {"ok": 1, "error": 1}


def test_statistics_never_cost_a_reply(monkeypatch):
    async def go():
        service = service_of()
        with watch_of(service) as seen:
            monkeypatch.setattr(seen, "seen", lambda *_: 1 / 0)
            return await service.score([Item(text="a")], Call(run="r", step=0))

    assert asyncio.run(go())[0].status == "ok"


def test_what_no_tokenizer_reads_is_counted_and_the_others_are_measured():
    class Tokenizer(Template):
        @property
        def backend_tokenizer(self):
            return Model(WordLevel({"w": 0, "?": 1}, unk_token="?"))

    class Real(Fake):
        def model(self, name):
            return Served("rm", "print", "hash", 512, Tokenizer())

    async def story(seen):
        items = [*items_of("w w", "\ud800"), Item(ids=(2**70,))]
        seen.seen(Call(run="r", step=1), items, [Score(1.0), Score(0, "error"), Score(0, "error")])
        await seen.close_step("r", 1)
        return await seen.view("r")

    view = run_watch(story, Real())
    assert view["counts"] == {"ok": 1, "error": 2}
    assert series_of(view, "proxy") == [1.0]


@pytest.mark.parametrize("name", ["\ud800", "x" * 257])
def test_a_run_has_a_name_that_a_file_and_a_page_can_hold(name):
    async def go():
        async with client_of(service_of()) as client:
            raw = json.dumps({"texts": ["a"], "run": name, "step": 0})
            return await client.post("/v1/score", content=raw)

    assert asyncio.run(go()).status_code == 400


def test_a_changed_contract_is_a_warning_and_stays_one_after_a_restart(tmp_path):
    async def story(seen):
        for step, contract in enumerate(("one", "one", "two", "two")):
            seen.seen(Call(run="r", step=step, contract=contract), items_of("a"), [Score(1.0)])
            await seen.close_step("r", step)
        return await seen.view("r")

    async def again(seen):
        return await seen.view("r")

    for view in (run_watch(story, folder=tmp_path), run_watch(again, folder=tmp_path)):
        assert view["contracts"] == [
            {"model": "rm", "contract": "one", "step": 0},
            {"model": "rm", "contract": "two", "step": 2},
        ]
        assert view["status"] == "warn"
        assert "The contract of rm changed at step 2" in view["reason"]
        assert "The contract of rm changed at step 2" in run_page(view, 0.0)
        assert "rm two from step 2" in run_page(view, 0.0)


def test_the_held_out_model_of_a_run_has_its_contract_noted():
    async def story(seen):
        seen.seen(Call(run="r", step=1, contract="c"), items_of("a"), [Score(1.0)])
        return await seen.view("r")

    assert [one["model"] for one in run_watch(story, held_out="second")["contracts"]] == ["rm", "second"]
