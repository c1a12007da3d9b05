"""Scrapes of a served database, as Prometheus reads them, with a clock of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from reconciler.api.metrics import DatabaseMetrics, Metrics
    from tests.served import Served

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    """Read an exposition: name and labels of each sample, with its value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Scraper:
    """Asks for metrics; what is kept for some seconds is asked for anew when the test says so.

    Attributes:
        database: The collector that reads the database.
        samples: Of the last scrape.
    """

    def __init__(self, served: Served) -> None:
        """Take over the clock of the collector."""
        metrics: Metrics = served.app.state.metrics
        self.database: DatabaseMetrics = metrics.database
        self.samples: Samples = {}
        self._served = served
        self._now = 0.0
        for one in (self.database, self.database.drift):
            one._clock = lambda: self._now

    def scrape(self, *, after: float = 0.0) -> Samples:
        """Ask for metrics.

        Args:
            after: Seconds that pass before.
        """
        self._now += after
        response = self._served.get("/metrics")
        assert response.status_code == 200
        self.samples = parse(response.text)
        return self.samples

    def find(self, name: str, **labels: str) -> float | None:
        """Return a value of the last scrape; None where it was not told."""
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def names(self) -> set[str]:
        """Return the names of all samples of the last scrape."""
        return {name for name, _ in self.samples}
