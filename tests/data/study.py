"""Judgements for tests: hypothesis strategies, and a simulated study with planted raters."""

import math
import random

from hypothesis import strategies as st

from guerdon.types import Judgement, Message, Question

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
answers = texts.filter(str.strip)
finite = st.floats(allow_nan=False, allow_infinity=False)
times = st.floats(0, 4e9) | st.just(math.nan)


def said(text: str, role: str = "assistant") -> tuple[Message, ...]:
    return (Message(role=role, content=text),)


@st.composite
def questions(draw: st.DrawFn, most: int = 4) -> Question:
    found = draw(st.lists(answers, min_size=2, max_size=most, unique=True))
    prompt = draw(
        st.lists(st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts), max_size=3)
    )
    models = tuple(f"m{i}" for i in range(len(found))) if draw(st.booleans()) else ()
    return Question(tuple(prompt), tuple(said(text) for text in found), models, draw(texts), draw(texts))


@st.composite
def judgements(draw: st.DrawFn, most: int = 4) -> Judgement:
    question = draw(questions(most))
    k = len(question.completions)
    answer = draw(st.sampled_from(["ranked", "ranked", "ranked", "all_bad", "skip", "flag"]))
    return Judgement(
        id=draw(answers), rater=draw(answers), kind=draw(st.sampled_from(["human", "model"])), question=question,
        order=tuple(draw(st.permutations(range(k)))) if draw(st.booleans()) else (), answer=answer,
        ranks=tuple(draw(st.lists(st.integers(0, 3).map(float), min_size=k, max_size=k))) if answer == "ranked" else (),
        strength=draw(st.none() | st.sampled_from([1.0, 2.0, 3.0])),
        attributes=draw(st.dictionaries(texts, st.tuples(*[st.none() | finite] * k), max_size=2)),
        rationale=draw(texts), edited=draw(texts), shown_at=draw(times), first_input_at=draw(times),
        submitted_at=draw(times), guideline=draw(st.integers(0, 9)), replaces=draw(texts),
        arm=draw(st.sampled_from(["random", "uncertain", "gold", "repeat", "given"])),
        probability=draw(st.none() | st.floats(0, 1)),
    )  # fmt: skip


def simulate(skills, sides, threshold=0.2, questions=1000, overlap=3, copiers=0, seed=0, repeats=0.0, scale=1.5):
    """Ranked judgements of pairs by the rater model itself; raters 0..copiers-1 mostly answer by a key of their own."""
    rng = random.Random(seed)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    found = []
    for number in range(questions):
        question = Question(
            said(f"q{number}", "user"),
            (said(f"{number} a"), said(f"{number} b" + " more" * (number % 3))),
            id=f"q{number}",
        )
        gap, key = rng.gauss(0, scale), rng.random() < 0.5
        for r in rng.sample(range(len(skills)), overlap):
            orders = [rng.choice([(0, 1), (1, 0)])]
            if rng.random() < repeats:
                orders.append(orders[0][::-1])
            for time, order in enumerate(orders):
                h = skills[r] * gap + sides[r] * (1 if order == (0, 1) else -1)
                x = rng.random()
                first, second = sigmoid(h - threshold), sigmoid(-h - threshold)
                ranks = (0.0, 1.0) if x < first else (1.0, 0.0) if x < first + second else (0.0, 0.0)
                if r < copiers and rng.random() < 0.95:
                    ranks = (0.0, 1.0) if key else (1.0, 0.0)
                at = 1e6 + 60.0 * len(found)
                found.append(
                    Judgement(f"j{len(found)}", f"r{r:02d}", "human", question, order, "ranked", ranks, shown_at=at,
                              first_input_at=at + 5, submitted_at=at + 20, arm="repeat" if time else "random", guideline=1)
                )  # fmt: skip
    return found
