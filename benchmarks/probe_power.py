"""Do the probes find what raters planted, and pass what they did not?

    python benchmarks/probe_power.py --output benchmarks/probe_power.md
    python benchmarks/probe_power.py --output benchmarks/probe_power.md --first-seed 20 --seeds 80 --raters none
    python benchmarks/probe_power.py --output benchmarks/probe_power.md --writers marks --gram 0.3
    python benchmarks/probe_power.py --output benchmarks/probe_power.md --writers praise --gram 0.3 --model reader linear gold
    python benchmarks/probe_power.py --model transformer --seeds 3

For every seed, four reward models are trained on the same prompts and answers of the lab, judged by raters who differ in
one leaning alone: none, length, format, sycophancy. `linear` is a Bradley-Terry model on hashed words, word pairs and
surface features, which cannot tell a right answer from a wrong one; `reader` also sees the parts of gold, as a model
does that understands the answer; `gold` is the truth itself; `transformer` is a small one trained by `guerdon.train.loop.fit`.

`--writers` says what the answers are like. `marks`: praise, lists, copies of the question and exclamation marks are equally
frequent whoever writes, so that none of them says how good an answer is. `praise`: that holds for praise and lists alone.
With `--output` the tables replace those under the same headings of the page; the words around them stay.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import tempfile
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags
from scipy.special import expit

from guerdon.diagnose.probes.measure import measure
from guerdon.evaluate.intervals import wilson
from guerdon.lab.gold import gold, parts, words
from guerdon.lab.phrases import FLATTERY
from guerdon.lab.raters import Rater
from guerdon.lab.simulate import Simulation, simulate
from guerdon.lab.writers import WRITERS, Writer
from guerdon.types import Conversation, Score, Scorer

HASHES = 1 << 14
FAIR = Rater("fair", skill=12.0)
RATERS = {
    "none": FAIR,
    "length": replace(FAIR, name="length", length_bias=6.0),
    "format": replace(FAIR, name="format", format_bias=3.0),
    "sycophancy": replace(FAIR, name="sycophancy", sycophancy=3.0),
}
_STOP = re.compile(r"\.(?=\s|$)")


@dataclass(frozen=True)
class Marked(Writer):
    """A writer that also copies whole prompts and is excited, whatever it knows."""

    whole: float = 0.2
    """share of answers that begin by repeating the whole prompt"""
    excited: float = 0.4
    """share of answers that end their sentences with exclamation marks instead of full stops; the praise stays as it is"""

    def write(self, prompt: str, rng: random.Random) -> str:
        text = super().write(prompt, rng)
        if rng.random() < self.excited:
            text = _STOP.sub("!", text)
            for praise in FLATTERY:  # raters know it by its letters
                text = text.replace(f"{praise[:-1]}!", praise)
        return f"{prompt}\n\n{text}" if rng.random() < self.whole else text


# Whatever a writer knows, it uses a mark as often as any other: a leaning of the rater is the only way to learn to like it.
PRAISE = tuple(replace(writer, flattery=0.4, formatting=0.4) for writer in WRITERS)
WRITING: dict[str, tuple[Writer, ...]] = {
    "marks": tuple(Marked(**asdict(replace(writer, echo=0.2))) for writer in PRAISE),
    "praise": PRAISE,
}
# The probes that look for each planted leaning. The lab's raters like praise; agreement they do not know.
LOOKED_FOR = {
    "length": ("padding", "restating", "repetition"),
    "format": ("list", "bold"),
    "sycophancy": ("flattery",),
}
_LIST = re.compile(r"^\s*[-*] ", re.MULTILINE)
PENALTY = 0.001
# Weight of a word or word pair beside the other features: the smaller, the stronger its penalty. Chosen on held-out pairs.
GRAMS = (0.05, 0.1, 0.2, 0.3)
HELD_OUT = 5  # one pair in so many, to choose by


@cache
def features_of(text: str, prompt: str, reads: bool) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Dense features, and the hashes of the words and word pairs that occur.

    Dense: length, list, bold, lines and punctuation, words taken from the prompt and others; with `reads`, also the
    nine parts of gold, which make the model one that understands the answer.
    """
    said, asked = words(text), set(words(prompt))
    fresh = len(set(said)) / max(len(said), 1)
    dense = (
        math.log2(1 + len(said)),
        float(bool(_LIST.search(text))),
        float("**" in text),
        math.log2(1 + text.count("!")),
        math.log2(1 + text.count("?")),
        sum(word in asked for word in said) / max(len(said), 1),
        fresh,
    )
    grams = {zlib.crc32(gram.encode()) % HASHES for gram in {*said, *map(" ".join, pairwise(said))}}
    return dense + (tuple(parts(prompt, text).values()) if reads else ()), tuple(sorted(grams))


def features(texts: Sequence[str], prompts: Sequence[str], reads: bool) -> csr_matrix:
    """(text, feature), dense ones first."""
    rows, columns, values = [], [], []
    for i, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        dense, grams = features_of(text, prompt, reads)
        rows += [i] * (len(dense) + len(grams))
        columns += [*range(len(dense)), *(len(dense) + gram for gram in grams)]
        values += [*dense, *([1.0] * len(grams))]
    width = len(features_of("", "", reads)[0]) + HASHES
    return csr_matrix((values, (rows, columns)), shape=(len(texts), width), dtype=float)


@dataclass(frozen=True)
class LinearReward:
    """A scorer whose reward is a weighted sum of features."""

    weights: np.ndarray
    reads: bool

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        answers = [c[-1]["content"] for c in conversations]
        prompts = [c[-2]["content"] if len(c) > 1 else "" for c in conversations]
        return [Score(float(value)) for value in features(answers, prompts, self.reads) @ self.weights]


def train_linear(simulation: Simulation, reads: bool, gram: float | None) -> LinearReward:
    """Bradley-Terry with an L2 penalty; ties are left out. `gram` None: the one of least loss on a fifth of the pairs."""
    pairs = [
        (c.completions[p.chosen][0]["content"], c.completions[p.rejected][0]["content"], c.prompt[0]["content"])
        for c in simulation.comparisons
        for p in c.pairs()
        if p.target == 1
    ]
    chosen, rejected, prompts = zip(*pairs, strict=True)
    x = features(chosen, prompts, reads) - features(rejected, prompts, reads)
    if gram is None:
        out = np.arange(x.shape[0]) % HELD_OUT == 0
        losses = [np.logaddexp(0, -(x[out] @ bradley_terry(x[~out], gram))).mean() for gram in GRAMS]
        gram = GRAMS[int(np.argmin(losses))]
    return LinearReward(bradley_terry(x, gram), reads)


def bradley_terry(x: csr_matrix, gram: float) -> np.ndarray:
    """Weights that make the differences `x`, chosen less rejected, likely; by L-BFGS."""
    scale = np.ones(x.shape[1])
    scale[-HASHES:] = gram
    scaled = x @ diags(scale)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = scaled @ w
        gradient = -(scaled.T @ expit(-margin)) / len(margin) + PENALTY * w
        return float(np.logaddexp(0, -margin).mean() + PENALTY / 2 * w @ w), gradient

    start = np.zeros(len(scale))
    return scale * minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x


def train_transformer(simulation: Simulation, folder: Path, seed: int) -> Scorer:
    """A small causal transformer of the lab, pretrained on its text and trained by the loop of the package."""
    from guerdon.data.write import write_jsonl
    from guerdon.lab.backbone import build_backbone, corpus, pretrain
    from guerdon.model.reward import RewardModel
    from guerdon.train.config import TrainConfig
    from guerdon.train.loop import fit

    write_jsonl(folder / "train.jsonl", simulation.comparisons)
    build_backbone(folder / "base", seed=seed)
    steps = len(simulation.comparisons) // 8
    pretrain(folder / "base", corpus(8 * steps, seed), steps, seed)
    config = TrainConfig(
        data=(str(folder / "train.jsonl"),),
        model=str(folder / "base"),
        output=str(folder / "run"),
        eval_fraction=0,
        epochs=2,
        batch_size=16,
        learning_rate=1e-3,
        max_length=512,
        seed=seed,
    )
    return RewardModel.load(fit(config, say=lambda line: None).model)


class Gold:
    """The truth itself as a reward."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [Score(gold(c[-2]["content"] if len(c) > 1 else "", c[-1]["content"])) for c in conversations]


def train(model: str, simulation: Simulation, folder: Path, seed: int, gram: float | None) -> Scorer:
    """A reward of the kind that `--model` names."""
    if model == "gold":
        return Gold()
    if model == "transformer":
        return train_transformer(simulation, folder, seed)
    return train_linear(simulation, reads=model == "reader", gram=gram)


@dataclass(frozen=True)
class Outcome:
    """One trained model: its condition, accuracy on fresh labels, verdicts and effects by probe."""

    condition: str
    accuracy: float
    verdicts: dict[str, str]
    effects: dict[str, float]


def one_seed(
    seed: int,
    model: str,
    writers: str,
    conditions: Sequence[str],
    gram: float | None,
    comparisons: int,
    probed: int,
) -> list[Outcome]:
    """The models of one seed, one per kind of rater, probed on fresh prompts."""
    outcomes = []
    for condition in conditions:
        if model == "gold" and condition != "none":
            continue  # gold has no raters
        rater, written = RATERS[condition], WRITING[writers]
        simulation = simulate(comparisons, seed=seed, raters=[rater], writers=written)
        asked = {c.prompt[0]["content"] for c in simulation.comparisons}
        fresh = simulate(probed, seed=10_000 + seed, raters=[rater], writers=written, exclude=asked)
        with tempfile.TemporaryDirectory() as folder:
            scorer = train(model, simulation, Path(folder), seed, gram)
            report = measure(scorer, fresh.comparisons, limit=probed, seed=seed)
        assert report.independence is not None
        verdicts = {probe.name: probe.verdict for probe in report.probes}
        effects = {probe.name: probe.worst.effect for probe in report.probes}
        outcomes.append(Outcome(condition, report.independence.accuracy, verdicts, effects))
    features_of.cache_clear()
    return outcomes


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Share of seeds in which a probe of each family is flagged, by what was planted; then every probe on its own.

    `any other probe` counts the seeds with a flag anywhere in the battery but in the family that was planted.
    """
    lines = ["| planted | accuracy | length | format | sycophancy | any other probe |", "|---|---|---|---|---|---|"]
    conditions = list(dict.fromkeys(o.condition for o in outcomes))
    for condition in conditions:
        mine = [o for o in outcomes if o.condition == condition]
        others = [probe for probe in mine[0].verdicts if probe not in LOOKED_FOR.get(condition, ())]
        flagged = [sum(_is_flagged(o, probes) for o in mine) for probes in (*LOOKED_FOR.values(), others)]
        shares = " | ".join(_share(count, len(mine)) for count in flagged)
        lines.append(f"| {condition} | {np.mean([o.accuracy for o in mine]):.3f} | {shares} |")
    lines += ["", "Flagged and mean effect in standard deviations, every probe:", ""]
    lines += ["| probe | " + " | ".join(conditions) + " |", "|---" * (len(conditions) + 1) + "|"]
    for probe in outcomes[0].verdicts:
        cells = []
        for condition in conditions:
            mine = [o for o in outcomes if o.condition == condition]
            count = sum(o.verdicts[probe] == "biased" for o in mine)
            cells.append(f"{count}/{len(mine)}, {np.mean([o.effects[probe] for o in mine]):+.2f}")
        lines.append(f"| {probe} | {' | '.join(cells)} |")
    return lines


def _is_flagged(outcome: Outcome, probes: Sequence[str]) -> bool:
    return any(outcome.verdicts[probe] == "biased" for probe in probes)


def _share(count: int, n: int) -> str:
    low, high = wilson(np.array([count / n]), np.array([n]))
    return f"{count}/{n} ({100 * low[0]:.0f} to {100 * high[0]:.0f} %)"


def put(page: Path, title: str, lines: Sequence[str]) -> None:
    """Write a section of a page, in place of the one with the same title or at the end."""
    section = "\n".join([f"## {title}", "", *lines]) + "\n"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    old = re.search(rf"^## {re.escape(title)}\n.*?(?=\n## |\Z)", text, re.MULTILINE | re.DOTALL)
    text = text[: old.start()] + section + text[old.end() :] if old else f"{text.rstrip()}\n\n{section}".lstrip()
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="put the tables into this page as well")
    parser.add_argument(
        "--model", nargs="+", choices=("reader", "linear", "gold", "transformer"), default=["reader"], help="rewards"
    )
    parser.add_argument("--writers", choices=tuple(WRITING), default="marks", help="what the answers are like")
    parser.add_argument("--raters", nargs="+", choices=tuple(RATERS), default=list(RATERS), help="what is planted")
    parser.add_argument(
        "--gram", type=float, help="weight of a word; without it, each reward chooses on held-out pairs"
    )
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--comparisons", type=int, default=3000, help="comparisons to train on")
    parser.add_argument("--probed", type=int, default=200, help="fresh comparisons to probe")
    parser.add_argument("--workers", type=int, default=1, help="processes, one seed each")
    options = parser.parse_args()

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for model in options.model:
        started = time.monotonic()
        job = partial(
            one_seed,
            model=model,
            writers=options.writers,
            conditions=options.raters,
            gram=options.gram,
            comparisons=options.comparisons,
            probed=options.probed,
        )
        with ProcessPoolExecutor(options.workers) as pool:
            outcomes = [outcome for of_seed in pool.map(job, seeds) for outcome in of_seed]
        lines = [
            f"Seeds {seeds[0]} to {seeds[-1]}, {options.comparisons:,} comparisons to train on, {options.probed} to probe, "
            f"{time.monotonic() - started:.0f} s.",
            "",
            *table(outcomes),
        ]
        fixed = "" if options.gram is None else f", words at {options.gram}"
        title = f"{model}, {options.writers} alike{fixed}" + (f", from seed {seeds[0]}" if seeds[0] else "")
        if options.output:
            put(options.output, title, lines)
        print("\n".join([f"## {title}", "", *lines, ""]))


if __name__ == "__main__":
    main()
