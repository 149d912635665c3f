"""Nothing a rater waits for reads a whole table: every statement goes by an index, so a million judgements cost no more than ten."""

from __future__ import annotations

import sqlalchemy as sa

from tests.collect.work import answer_all, answer_next, answered, study


def test_next_submit_undo_and_progress_scan_no_table(light, clock):
    study(light, 60, gold=3, training=1, repeats=0.2, lock_seconds=60)
    answer_next(light, "a")
    seen: set[tuple[str, int]] = set()

    def remember(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(("SELECT", "UPDATE")):
            seen.add((statement, len(parameters[0] if executemany else parameters)))

    engine = light.database.engine
    sa.event.listen(engine, "before_cursor_execute", remember)
    answer_all(light, "a", 40)
    light.next("s", "b")
    clock.now += 61
    answer_next(light, "c", answer="skip")
    back = light.undo("s", "a")
    light.submit(answered(back), "s", assignment=back.id)
    light.progress("s", "a")
    sa.event.remove(engine, "before_cursor_execute", remember)
    assert len(seen) > 20
    scans = []
    with engine.connect() as db:
        for statement, count in seen:
            plan = db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * count)
            scans += [(row[3], statement) for row in plan if row[3].startswith("SCAN")]
    assert [scan for scan in scans if scan[0].split()[1] in ("question", "assignment", "judgement")] == []
