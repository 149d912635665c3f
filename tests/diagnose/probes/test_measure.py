"""Scorers with known leanings are flagged where they should be, and nowhere else."""

import hashlib
import json
import math
import random
import re
from functools import cache

import pytest

from guerdon.diagnose.probes import wordings
from guerdon.diagnose.probes.catalog import PROBES
from guerdon.diagnose.probes.measure import measure, select
from guerdon.diagnose.probes.neutral import _bank
from guerdon.diagnose.probes.wordings import AGREEMENT, CONFIDENCE, FLATTERY, REFUSALS
from guerdon.types import Comparison, DataError, Score

LENGTH = {"padding", "restating", "repetition"}
DAMAGE = {"gibberish", "empty", "refusal", "constant", "swapped prompt"}


def comparisons(n=48, k=2):
    """Questions about a topic; an answer is good by the number of facts of that topic that it states."""
    rng, made = random.Random(0), []
    for i in range(n):
        counts = rng.sample(range(2, 7), k)
        answers = [
            " ".join(f"The value of topic{i} in part {j} is fact{i}x{j}." for j in rng.sample(range(9), count))
            for count in counts
        ]
        made.append(
            Comparison(
                ({"role": "user", "content": f"What is known about topic{i}?"},),
                tuple(({"role": "assistant", "content": answer},) for answer in answers),
                tuple(float(-count) for count in counts),
                id=str(i),
            )
        )
    return made


class Rule:
    """A scorer made of a function of the last user turn and the answer."""

    def __init__(self, rule):
        self.rule = rule

    def score(self, conversations):
        return [Score(self.rule(c[-2]["content"] if len(c) > 1 else "", c[-1]["content"])) for c in conversations]


def words(text):
    return re.findall(r"[^\W\d_]+", text.lower())


@cache
def vocabulary():
    """Every word that the questions, the answers, the phrases and the placebos use."""
    phrases = [text for value in vars(wordings).values() if isinstance(value, tuple) for text in value]
    phrases += [text for texts in _bank().values() for text in texts]
    return frozenset(words(" ".join(phrases) + " The value of topic in part is fact x. What is known about"))


def facts(prompt, answer):
    """Different facts about the topic that the prompt asks for, less a little for every word that is none."""
    topic = re.search(r"topic(\d+)", prompt)
    known = set(re.findall(rf"fact{topic[1]}x\d", answer)) if topic else set()
    return len(known) - 0.2 * sum(word not in vocabulary() for word in words(answer))


def noise(prompt, answer):
    return int(hashlib.sha256(f"{prompt}|{answer}".encode()).hexdigest()[:8], 16) / 2**32


def verdicts(rule, **options):
    report = measure(Rule(rule), comparisons(**options), limit=None)
    return report, {probe.name: probe.verdict for probe in report.probes}


def flagged(rule):
    return {name for name, verdict in verdicts(rule)[1].items() if verdict == "biased"}


def test_a_reward_that_counts_facts_is_clean():
    report, found = verdicts(facts)
    assert set(found.values()) == {"clean"}
    assert report.warnings == ()
    assert report.independence.accuracy == 1.0
    assert report.independence.share == pytest.approx(0.0, abs=0.05)
    assert report.independence.accuracy_removed == pytest.approx(0.5, abs=0.2)


def test_love_of_length_is_found_where_length_is_added():
    found = flagged(lambda p, a: facts(p, a) + len(a) / 40)
    assert found == LENGTH
    report, _ = verdicts(lambda p, a: len(a) / 40)
    padding = report.probes[0]
    assert padding.slope > 0
    effects = [effect.effect for effect in padding.effects]
    assert effects == sorted(effects)


def test_love_of_bold_is_found_where_words_are_bold():
    report, found = verdicts(lambda p, a: facts(p, a) + a.count("**"))
    assert {name for name, verdict in found.items() if verdict == "biased"} == {"bold"}
    bold = next(probe for probe in report.probes if probe.name == "bold").worst
    assert bold.flip_rate > 0.5
    assert bold.placebo_flip_rate == 0.0
    assert bold.win_rate == 1.0


def test_love_of_praise_is_found_where_the_user_is_praised():
    praise = {*FLATTERY, *AGREEMENT}
    assert flagged(lambda p, a: facts(p, a) + 2 * any(text in a for text in praise)) == {"flattery", "agreement"}


def test_agreement_with_the_user_is_found():
    def agrees(prompt, answer):
        believed = set(re.findall(r"fact\d+x\d", prompt))
        return facts(prompt, answer) + 2 * bool(believed & set(re.findall(r"fact\d+x\d", answer)))

    assert flagged(agrees) == {"belief"}


def test_one_liked_phrase_is_not_a_bias_for_confidence():
    report, found = verdicts(lambda p, a: facts(p, a) + 9 * (CONFIDENCE[4] in a))
    assert found["confidence"] == "unclear"
    confidence = next(probe for probe in report.probes if probe.name == "confidence")
    assert confidence.worst.effect > 0.1
    assert confidence.prompts_needed is None  # more prompts would not settle it: the phrases disagree


def test_a_reward_that_ignores_the_prompt():
    def blind(prompt, answer):
        return len(set(re.findall(r"fact\d+x\d", answer)))

    report, found = verdicts(blind)
    assert found["swapped prompt"] == "biased"
    assert report.independence.share == pytest.approx(1.0)
    assert report.independence.correlation == pytest.approx(1.0)
    assert report.independence.accuracy_removed == 1.0
    assert any("without reading the question" in warning for warning in report.warnings)
    assert found["gibberish"] == "biased"  # nonsense costs nothing here


def test_a_group_that_is_preferred_is_named():
    report, found = verdicts(lambda p, a: facts(p, a) - ("a Muslim" in p))
    assert {name for name, verdict in found.items() if verdict == "biased"} == {"identity: religion"}
    religion = next(probe for probe in report.probes if probe.name == "identity: religion")
    assert religion.worst.variant == "a Muslim"
    by_group = {effect.variant: effect.effect for effect in religion.effects}
    # one group lower by d: it lies d below the mean of the others, each of them d / 3 above
    assert by_group["a Christian"] == pytest.approx(-by_group["a Muslim"] / 3)
    assert by_group["a Muslim"] == pytest.approx(-1 / report.spread)


def test_refusals_that_are_liked_and_other_damage_that_is_not():
    def timid(prompt, answer):
        return 9.0 if answer in REFUSALS else facts(prompt, answer)

    assert flagged(timid) == {"refusal"}


def test_noise_is_no_bias():
    report, found = verdicts(noise, n=120)
    assert {probe.name for probe in report.named("biased")} <= DAMAGE  # noise does not fall when it should
    assert found["flattery"] == "unclear"
    flattery = next(probe for probe in report.probes if probe.name == "flattery")
    assert flattery.prompts_needed is None or flattery.prompts_needed > 120


def test_a_constant_reward_is_not_judged():
    report, found = verdicts(lambda p, a: 1.0)
    assert set(found.values()) == {"unclear"}
    assert "same reward" in report.warnings[0]
    assert report.independence is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_scale_and_offset_of_the_reward_do_not_matter():
    def leaning(prompt, answer):
        return facts(prompt, answer) + len(answer) / 100

    one, other = verdicts(leaning)[0], verdicts(lambda p, a: 7 * leaning(p, a) - 40)[0]
    assert other.spread == pytest.approx(7 * one.spread)
    for a, b in zip(one.probes, other.probes, strict=True):
        assert a.verdict == b.verdict
        assert a.worst.effect == pytest.approx(b.worst.effect, abs=1e-9)


def test_what_was_cut_or_failed_is_counted():
    class Short:
        def score(self, conversations):
            return [
                Score(math.nan, reason="too odd")
                if "fact3x" in c[-1]["content"]
                else Score(facts(c[0]["content"], c[-1]["content"]), truncated=len(c[-1]["content"]) > 300)
                for c in conversations
            ]

    report = measure(Short(), comparisons(), limit=None)
    padding = report.probes[0].effects[-1]
    assert padding.truncated > 20
    assert padding.unscored == 1
    assert padding.prompts == 47
    assert any("cut by the context" in warning for warning in report.warnings)
    assert any("2 of 96 natural answers were not scored" in warning for warning in report.warnings)


def test_the_choice_takes_every_prompt_before_any_comes_again():
    rows = comparisons(20)
    assert sorted(c.id for c in select(rows * 3, 20)) == sorted(c.id for c in rows)
    assert select(rows, 5, seed=1) == select(rows[::-1], 5, seed=1)
    assert select(rows, 5, seed=1) != select(rows, 5, seed=2)
    tie = Comparison(rows[0].prompt, rows[0].completions, (0.0, 0.0))
    with pytest.raises(DataError, match="decided label"):
        select([tie])


def test_rankings_give_more_to_the_spread_and_repeats_of_a_prompt_are_one_cluster():
    report = measure(Rule(facts), [*comparisons(12, k=3), *comparisons(12, k=3)], limit=None)
    assert (report.comparisons, report.prompts) == (24, 12)
    assert report.probes[0].worst.prompts == 12


def test_progress_and_wrong_scorers():
    done = []
    measure(Rule(facts), comparisons(20), advance=done.append, probes=PROBES[:1])
    assert sum(done) == 20

    class Half:
        def score(self, conversations):
            return [Score(0.0)]

    with pytest.raises(DataError, match="one each"):
        measure(Half(), comparisons(20))


def test_noise_raises_few_false_alarms_over_many_models():
    """Rewards that are noise by text: whatever is flagged among the probes that should not rise is a false alarm."""
    probes = [p for p in PROBES if p.expectation == "should not rise" and p.name in LENGTH | {"flattery", "confidence"}]
    rows, alarms = comparisons(24), 0
    for seed in range(60):
        report = measure(Rule(lambda p, a, seed=seed: noise(f"{seed} {p}", a)), rows, limit=None, probes=probes)
        alarms += bool(report.named("biased"))
    assert alarms <= 8  # 60 chances of at most 5 %: more than 8 in one case of 300
