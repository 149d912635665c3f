"""What a reward server counts, for Prometheus. Each service has a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


class Metrics:
    """Counters, gauges and histograms, and `page`, which writes them out. docs/serve.md defines each."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("guerdon_requests", "answered requests", ["route", "status"], registry=registry)
        self.refused = Counter("guerdon_refused", "requests refused, by reason", ["reason"], registry=registry)
        self.items = Counter("guerdon_items", "scored items by status", ["model", "status"], registry=registry)
        self.tokens = Counter("guerdon_tokens", "tokens of scored items", ["model"], registry=registry)
        self.computed = Counter(
            "guerdon_computed_tokens",
            "tokens that went through the trunk, padding included",
            ["model"],
            registry=registry,
        )
        self.dropped = Counter(
            "guerdon_dropped_items", "items dropped before they were scored: nobody waited any more", registry=registry
        )
        self.cached = Counter("guerdon_cached", "requests answered from the idempotency cache", registry=registry)
        self.queue = Gauge("guerdon_queue_tokens", "estimated tokens that wait", ["model"], registry=registry)
        self.rate = Gauge(
            "guerdon_tokens_per_second", "speed of late, in estimated tokens", ["model"], registry=registry
        )
        self.shared = Gauge(
            "guerdon_shared_share",
            "share of the last batch's tokens that prompt trees saved",
            ["model"],
            registry=registry,
        )
        self.open = Gauge("guerdon_requests_in_progress", "requests that are being answered", registry=registry)
        self.batch = Histogram(
            "guerdon_batch_tokens", "tokens of a batch", ["model"], buckets=_TOKENS, registry=registry
        )
        self.wait = Histogram(
            "guerdon_wait_seconds",
            "from admission until a request's first item left the queue",
            buckets=_SECONDS,
            registry=registry,
        )
        self.score = Histogram(
            "guerdon_batch_seconds", "encoding and scoring a batch", ["model"], buckets=_SECONDS, registry=registry
        )
        self.seconds = Histogram(
            "guerdon_request_seconds",
            "from the first byte of a request to the last of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
