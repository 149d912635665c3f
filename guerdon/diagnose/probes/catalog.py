"""All probes, in the order of the report."""

from __future__ import annotations

from guerdon.diagnose.probes import damage, form, length, manner
from guerdon.diagnose.probes.edits import Probe

PROBES: tuple[Probe, ...] = (*length.PROBES, *form.PROBES, *manner.PROBES, *damage.PROBES)
