"""What is counted, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics of one service; none is global."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = kept = CollectorRegistry()
        self.requests = Counter("textdiffusion_requests_total", "Requests", ["route", "status"], registry=kept)
        self.seconds = Histogram(
            "textdiffusion_request_seconds", "Seconds a request took", ["route"], buckets=SECONDS, registry=kept
        )
        self.waited = Histogram(
            "textdiffusion_queue_seconds", "Seconds until an order's first batch", buckets=SECONDS, registry=kept
        )
        self.waiting = Gauge("textdiffusion_queue_samples", "Samples that wait", registry=kept)
        self.samples = Counter("textdiffusion_samples_total", "Samples drawn", registry=kept)
        self.batch = Histogram("textdiffusion_batch_samples", "Samples in a batch", buckets=ROWS, registry=kept)
        self.batch_seconds = Histogram(
            "textdiffusion_batch_seconds", "Seconds of a batch", buckets=SECONDS, registry=kept
        )
        self.restarts = Counter("textdiffusion_worker_restarts_total", "Workers that replaced dead ones", registry=kept)
        self.ready = Gauge("textdiffusion_ready", "1 when a model is warm", registry=kept)
        self.model = Gauge("textdiffusion_model_info", "The model in service", ["model", "version"], registry=kept)

    def drew(self, rows: int, seconds: float) -> None:
        """A batch of `rows` samples was drawn."""
        self.samples.inc(rows)
        self.batch.observe(rows)
        self.batch_seconds.observe(seconds)

    def serves(self, model: str, version: str) -> None:
        """The model in service is another one."""
        self.model.clear()
        self.model.labels(model, version).set(1)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
