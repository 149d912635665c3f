import re
from pathlib import Path

from guerdon.lab.gold import parts
from guerdon.lab.raters import RATERS
from guerdon.lab.writers import WRITERS

PAGE = (Path(__file__).parents[2] / "docs" / "lab.md").read_text(encoding="utf-8")


def test_the_code_on_the_page_runs(capsys):
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, {})
    assert capsys.readouterr().out


def test_every_part_writer_and_rater_is_on_the_page():
    assert all(f"| `{name}` |" in PAGE for name in parts("", ""))
    assert all(f"| {row.name} |" in PAGE for row in (*WRITERS, *RATERS))
