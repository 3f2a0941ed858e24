"""What `/metrics` tells, as Prometheus reads it."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Meters:
    """Counters of one server, in a registry of its own."""

    def __init__(self, slots: int, active: Callable[[], int], waiting: Callable[[], int]):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hen_requests",
            "Requests, by what answers and the state told",
            ("model", "status"),
            registry=self.registry,
        )
        self.tokens = Counter(
            "hen_tokens",
            "Tokens: read, taken from the cache, written",
            ("kind",),
            registry=self.registry,
        )
        self.first_token = Histogram(
            "hen_first_token_seconds",
            "From a request to its first token",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.seconds = Histogram(
            "hen_request_seconds",
            "From a request to its last token",
            buckets=_SECONDS,
            registry=self.registry,
        )
        Gauge("hen_slots", "Replies that can be written at a time", registry=self.registry).set(
            slots
        )
        Gauge("hen_slots_active", "Replies being written", registry=self.registry).set_function(
            active
        )
        Gauge("hen_waiting", "Requests that wait for a slot", registry=self.registry).set_function(
            waiting
        )

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
