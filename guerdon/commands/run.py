"""guerdon diagnose run: one page on a policy run, or on several beside each other."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from guerdon.terminal import require_writable, spinner


def run(runs: Positional[tuple[str, ...]], output: str | None = None, title: str | None = None) -> None:
    """One page on a policy run, finished or not, or on several beside each other: what happened, and what to do.

    Args:
        runs: Folders of runs of guerdon optimize ppo, rloo or grpo.
        output: The page. Default: report.html in the first folder.
        title: Its heading.
    """
    from guerdon.diagnose.run_page import write_run_page
    from guerdon.types import ConfigError

    if not runs:
        raise ConfigError("name the folder of a policy run: guerdon diagnose run RUN")
    page = Path(output) if output else Path(runs[0]) / "report.html"
    if output:
        require_writable(output)
    with spinner("drawing"):
        write_run_page([Path(name) for name in runs], page, title)
    print(f"page: {page}")
