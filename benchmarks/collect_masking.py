"""What `guerdon.collect.masking.mask` hides in real answers, one line each, to be judged by eye.

    python benchmarks/collect_masking.py --data ../shared/data/alpaca-eval/gpt4_vs_davinci003/train.jsonl.gz

Each file has rows with `instruction` and one or both of `output_1` and `output_2`; equal answers are looked at once.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter
from pathlib import Path

from guerdon.collect.masking import mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    answers = {}
    for path in options.data:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                for name in ("output_1", "output_2"):
                    if row.get(name):
                        answers[row["instruction"], row[name]] = None
    started, rules, hit = time.perf_counter(), Counter(), 0
    for prompt, text in answers:
        found = mask(text, prompt).found
        hit += bool(found)
        rules.update({one.rule for one in found})
        for one in found:
            around = f"{text[max(0, one.start - 70) : one.start]}>>{one.word}<<{text[one.end : one.end + 40]}"
            print(f"{one.rule} | {' '.join(prompt.split())[:50]} | {' '.join(around.split())}")
    seconds = time.perf_counter() - started
    print(
        f"{len(answers):,} answers, {hit} with something hidden ({dict(rules)} by rule), {1e3 * seconds / len(answers):.2f} ms each"
    )


if __name__ == "__main__":
    main()
