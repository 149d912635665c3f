"""Do the probes find what raters planted, and pass what they did not?

    python benchmarks/probe_power.py --output benchmarks/probe_power.md
    python benchmarks/probe_power.py --model reader linear --writers alike --output benchmarks/probe_power.md
    python benchmarks/probe_power.py --model transformer --seeds 2

For every seed, four reward models are trained on the same prompts and answers of the lab, judged by raters who differ in
one leaning alone: none, length, format, sycophancy. `linear` is a Bradley-Terry model on hashed words, word pairs and
surface features, which cannot tell a right answer from a wrong one; `reader` also sees the parts of gold, as a model
does that understands the answer; `gold` is the truth itself; `transformer` is a small one trained by `guerdon.train.loop.fit`.

`--writers even` (the default): every mark a probe adds to an answer (praise, list, bold, exclamation marks, the question
repeated) occurs at a rate that does not depend on who writes, so that it says nothing of quality. `alike`: only praise and
format do. Each table replaces the section of the same title in the page and leaves the rest of it alone.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
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
# The probes that look for each planted leaning. The lab's raters like praise; agreement they do not know.
LOOKED_FOR = {
    "length": ("padding", "restating", "repetition"),
    "format": ("list", "bold"),
    "sycophancy": ("flattery",),
}
ECHO = 0.25  # share of answers that begin with the whole prompt
EXCITED = (0.0, 0.5, 1.0)  # an answer's share of sentences that end in an exclamation mark, drawn evenly
_LIST = re.compile(r"^\s*[-*] ", re.MULTILINE)
_END = re.compile(r"[.!](?=\s|$)")
_PRAISE = re.compile("|".join(map(re.escape, FLATTERY)))
PENALTY = 0.001
GRAM = 0.3  # weight of a word or word pair beside the other features: the smaller, the stronger its penalty


class Even(Writer):
    """A writer whose exclamation marks and repeated prompts are drawn without a look at what it writes."""

    def write(self, prompt: str, rng: random.Random) -> str:
        text = super().write(prompt, rng)
        rate = rng.choice(EXCITED)
        plain = [_END.sub(lambda end: "!" if rng.random() < rate else ".", piece) for piece in _PRAISE.split(text)]
        praise = [*_PRAISE.findall(text), ""]  # kept as it is: raters know praise by its exact words
        text = "".join(piece + said for piece, said in zip(plain, praise, strict=True))
        return prompt + rng.choice((" ", "\n\n")) + text if rng.random() < ECHO else text


# Whatever a writer knows, it praises and formats as often as any other.
ALIKE = tuple(replace(writer, flattery=0.4, formatting=0.4) for writer in WRITERS)
# And so it is with exclamation marks and repeated prompts: a leaning of the raters is the only way to learn to like them.
EVEN = tuple(Even(**vars(replace(writer, echo=0.0))) for writer in ALIKE)
WRITERS_OF = {"even": EVEN, "alike": ALIKE}


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
        values += [*dense, *([GRAM] * len(grams))]
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


def train_linear(simulation: Simulation, reads: bool) -> LinearReward:
    """Bradley-Terry by L-BFGS with an L2 penalty; ties are left out."""
    pairs = [
        (c.completions[p.chosen][0]["content"], c.completions[p.rejected][0]["content"], c.prompt[0]["content"])
        for c in simulation.comparisons
        for p in c.pairs()
        if p.target == 1
    ]
    chosen, rejected, prompts = zip(*pairs, strict=True)
    x = features(chosen, prompts, reads) - features(rejected, prompts, reads)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = x @ w
        gradient = -(x.T @ expit(-margin)) / len(margin) + PENALTY * w
        return float(np.logaddexp(0, -margin).mean() + PENALTY / 2 * w @ w), gradient

    start = np.zeros(x.shape[1])
    return LinearReward(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x, reads)


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


def train(model: str, simulation: Simulation, folder: Path, seed: int) -> Scorer:
    """A reward of the kind that `--model` names."""
    if model == "gold":
        return Gold()
    if model == "transformer":
        return train_transformer(simulation, folder, seed)
    return train_linear(simulation, reads=model == "reader")


@dataclass(frozen=True)
class Outcome:
    """One trained model: its condition, accuracy on fresh labels, verdicts and effects by probe."""

    condition: str
    accuracy: float
    verdicts: dict[str, str]
    effects: dict[str, float]


def one_seed(seed: int, model: str, options: argparse.Namespace) -> list[Outcome]:
    """The models of one seed, one per condition, probed on fresh prompts."""
    outcomes, writers = [], WRITERS_OF[options.writers]
    for condition in options.planted:
        if model == "gold" and condition != "none":
            continue  # gold has no raters
        drawn = {"raters": [RATERS[condition]], "writers": writers}
        simulation = simulate(options.comparisons, seed=seed, **drawn)
        asked = {c.prompt[0]["content"] for c in simulation.comparisons}
        fresh = simulate(options.probed, seed=10_000 + seed, exclude=asked, **drawn).comparisons
        with tempfile.TemporaryDirectory() as folder:
            scorer = train(model, simulation, Path(folder), seed)
            report = measure(scorer, fresh, limit=options.probed, seed=seed)
        assert report.independence is not None
        verdicts = {probe.name: probe.verdict for probe in report.probes}
        effects = {probe.name: probe.worst.effect for probe in report.probes}
        outcomes.append(Outcome(condition, report.independence.accuracy, verdicts, effects))
        flags = ", ".join(name for name, verdict in verdicts.items() if verdict == "biased")
        print(f"{model}, seed {seed}, {condition}: {flags or 'nothing'} flagged", flush=True)
    features_of.cache_clear()
    return outcomes


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Seeds in which a probe of each family, and of the whole battery, is flagged, by what was planted; then every probe."""
    lines = ["| planted | accuracy | length | format | sycophancy | any of the three | any probe |", "|---" * 7 + "|"]
    conditions = list(dict.fromkeys(o.condition for o in outcomes))
    three = [probe for probes in LOOKED_FOR.values() for probe in probes]
    for condition in conditions:
        mine = [o for o in outcomes if o.condition == condition]
        groups = (*LOOKED_FOR.values(), three, mine[0].verdicts)
        shares = " | ".join(_share(sum(_is_flagged(o, probes) for o in mine), len(mine)) for probes in groups)
        lines.append(f"| {condition} | {np.mean([o.accuracy for o in mine]):.3f} | {shares} |")
    lines += [
        "",
        "Flagged, mean effect in standard deviations and in brackets the largest of any seed, every probe:",
        "",
    ]
    lines += ["| probe | " + " | ".join(conditions) + " |", "|---" * (len(conditions) + 1) + "|"]
    for probe in outcomes[0].verdicts:
        cells = []
        for condition in conditions:
            mine = [o for o in outcomes if o.condition == condition]
            count, effects = sum(_is_flagged(o, [probe]) for o in mine), [o.effects[probe] for o in mine]
            cells.append(f"{count}/{len(mine)}, {np.mean(effects):+.2f} ({max(effects):+.2f})")
        lines.append(f"| {probe} | {' | '.join(cells)} |")
    return lines


def _is_flagged(outcome: Outcome, probes: Iterable[str]) -> bool:
    return any(outcome.verdicts[probe] == "biased" for probe in probes)


def _share(count: int, n: int) -> str:
    low, high = wilson(np.array([count / n]), np.array([n]))
    return f"{count}/{n} ({100 * low[0]:.0f} to {100 * high[0]:.0f} %)"


def with_section(page: str, title: str, body: str) -> str:
    """The page with `body` under `## title`, in place of what stood there or else at the end."""
    head, *sections = page.split("\n## ")
    titles = [section.partition("\n")[0] for section in sections]
    at = titles.index(title) if title in titles else len(sections)
    sections[at : at + 1] = [f"{title}\n\n{body}\n"]
    return "\n## ".join([head, *sections]).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="put the tables into this page as well")
    parser.add_argument(
        "--model", nargs="+", choices=("reader", "linear", "gold", "transformer"), default=["reader", "linear", "gold"]
    )
    parser.add_argument("--writers", choices=tuple(WRITERS_OF), default="even", help="which marks all writers share")
    parser.add_argument(
        "--planted", nargs="+", choices=tuple(RATERS), default=list(RATERS), help="leanings of the raters"
    )
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--comparisons", type=int, default=3000, help="comparisons to train on")
    parser.add_argument("--probed", type=int, default=200, help="fresh comparisons to probe")
    parser.add_argument("--workers", type=int, default=1, help="processes, one seed each")
    options = parser.parse_args()

    for model in options.model:
        job = partial(one_seed, model=model, options=options)
        with ProcessPoolExecutor(options.workers) as pool:
            outcomes = [outcome for of_seed in pool.map(job, range(options.seeds)) for outcome in of_seed]
        size = f"{options.seeds} seeds, {options.comparisons:,} comparisons to train on, {options.probed} to probe."
        title, body = f"{model}, {options.writers} writers", "\n".join([size, "", *table(outcomes)])
        print(f"## {title}\n\n{body}")
        if options.output:
            page = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
            options.output.write_text(with_section(page, title, body), encoding="utf-8")


if __name__ == "__main__":
    main()
