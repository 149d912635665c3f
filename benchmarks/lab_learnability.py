"""Can the lab's gold be learned from its raters, and does it take more than surface features?

    python benchmarks/lab_learnability.py --output benchmarks/lab_learnability.md

Trains on simulated comparisons and measures pair accuracy on fresh pairs ordered by gold, over unseen prompts: a linear
Bradley-Terry model on hashed words and word pairs, and small transformers, with and without pretraining on lab text.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from guerdon.data.write import write_jsonl
from guerdon.lab.backbone import build_backbone, corpus, pretrain
from guerdon.lab.gold import words
from guerdon.lab.simulate import gold_comparisons, simulate
from guerdon.model.reward import RewardModel
from guerdon.train.config import TrainConfig
from guerdon.train.loop import fit
from guerdon.types import Comparison

HASHES = 1 << 16


def decided(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Chosen and rejected text of every pair that is no tie."""
    pairs = []
    for c in comparisons:
        texts = [completion[0]["content"] for completion in c.completions]
        pairs += [(texts[p.chosen], texts[p.rejected]) for p in c.pairs() if p.target == 1]
    return pairs


def differences(pairs: Sequence[tuple[str, str]]) -> csr_matrix:
    """Counts of hashed words and word pairs, chosen less rejected: (pair, hash)."""
    rows, columns, values = [], [], []
    for i, pair in enumerate(pairs):
        for text, sign in zip(pair, (1, -1), strict=True):
            said = words(text)
            for gram in [*said, *map(" ".join, pairwise(said))]:
                rows.append(i)
                columns.append(zlib.crc32(gram.encode()) % HASHES)
                values.append(sign)
    return csr_matrix((values, (rows, columns)), shape=(len(pairs), HASHES), dtype=float)


def linear_accuracy(train: Sequence[Comparison], test: Sequence[Comparison]) -> float:
    """Held-out accuracy of the linear model; L2 penalty 0.003; 0.01 and 0.03 do no better."""
    x = differences(decided(train))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = x @ w
        gradient = -(x.T @ (1 / (1 + np.exp(margin)))) / len(margin) + 0.003 * w
        return float(np.logaddexp(0, -margin).mean() + 0.0015 * w @ w), gradient

    weights = minimize(loss, np.zeros(HASHES), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return float((differences(decided(test)) @ weights > 0).mean())


def transformer_accuracy(base: Path, train: Path, test: Sequence[Comparison], run: Path, epochs: float) -> float:
    config = TrainConfig(
        data=(str(train),),
        eval_fraction=0,
        model=str(base),
        output=str(run),
        epochs=epochs,
        batch_size=8,
        learning_rate=1e-3,
    )
    model = RewardModel.load(fit(config, say=lambda line: None).model)
    correct = []
    for c in test:
        if c.ranks[0] != c.ranks[1]:
            left, right = model.score(c.conversations())
            correct.append((left > right) == (c.ranks[0] < c.ranks[1]))
    return float(np.mean(correct))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the table to this file as well")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3000, 6000], help="comparisons to train on")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 4], help="layers of the transformers")
    parser.add_argument("--epochs", type=float, default=2.0, help="passes over the comparisons")
    parser.add_argument("--pretrain-steps", type=int, default=1000, help="steps of 8 texts each; 0 leaves it out")
    options = parser.parse_args()

    simulation = simulate(max(options.sizes), seed=0)
    seen = {c.prompt[0]["content"] for c in simulation.comparisons}
    test = gold_comparisons(1000, seed=1, exclude=seen)
    lines = [
        f"Ceiling against the raters {simulation.ceiling:.3f}; raters agree with gold {simulation.gold_agreement:.3f}.",
        "",
        "| model | pairs | accuracy against gold | CPU seconds |",
        "|---|---|---|---|",
    ]

    def report(name: str, size: int | str, accuracy: str, started: float) -> None:
        lines.append(f"| {name} | {size} | {accuracy} | {time.process_time() - started:.0f} |")
        print(lines[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        bases: list[tuple[str, Path]] = []
        for layers in options.layers:
            base, name = Path(folder) / f"base{layers}", f"{layers} layers"
            build_backbone(base, seed=0, layers=layers)
            bases.append((f"{name}, random start", base))
            if options.pretrain_steps:
                start, trained = time.process_time(), Path(folder) / f"pretrained{layers}"
                build_backbone(trained, seed=0, layers=layers)
                texts = corpus(8 * options.pretrain_steps, 2)
                pretrain(trained, texts, options.pretrain_steps, 0)
                bases.append((f"{name}, pretrained", trained))
                report(f"(pretraining of {name})", "", "", start)
        for size in options.sizes:
            train = Path(folder) / f"{size}.jsonl"
            write_jsonl(train, simulation.comparisons[:size])
            start = time.process_time()
            report(
                "linear on words and word pairs",
                size,
                f"{linear_accuracy(simulation.comparisons[:size], test):.3f}",
                start,
            )
            for name, base in bases:
                start, run = time.process_time(), Path(folder) / f"{base.name}-{size}"
                report(name, size, f"{transformer_accuracy(base, train, test, run, options.epochs):.3f}", start)
    if options.output:
        options.output.write_text("# Learnability of the lab\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
