"""guerdon collect create: a new study."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from guerdon.types import ConfigError


def collect_create(
    study: Positional[str], database: str = "study.db", settings: str | None = None, guidelines: str | None = None
) -> None:
    """Make a study, empty as yet; the database is made too when it does not exist.

    Args:
        study: Its name: letters, digits, '-', '_' and '.'.
        database: SQLite file, or postgresql://USER:PASSWORD@HOST/NAME.
        settings: YAML file with settings of the study (see docs/collect.md); without it all have their defaults.
        guidelines: Markdown file with the guidelines that raters read.
    """
    from guerdon.collect.access import Access
    from guerdon.collect.settings import Settings
    from guerdon.collect.store import Store

    chosen = Settings.from_yaml(settings) if settings else Settings()
    text = _read(guidelines) if guidelines else ""
    with Store.open(database) as store:
        store.create_study(study, chosen)
        Access(store).note("command line", "study begun", study)
        if text:
            version = store.add_guideline(study, text)
            Access(store).note("command line", "guidelines changed", study, version=version)
    shown = Path(database).name if "://" not in database else "the database"
    print(f"study {study} is in {shown}; next: guerdon collect import {study} FILE --database {database}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
