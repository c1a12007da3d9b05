"""A target with an outbox, a deliverer and real endpoints, for the tests of delivery."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from reconciler.core.config import Config, Secret
from reconciler.database.connect import connect
from reconciler.runtime.delivery import Deliverer, Outcome, deliver_due
from reconciler.runtime.notifying import load_sender
from reconciler.runtime.secret_values import SecretStores
from tests.declared import OWNER, Site, channel

if TYPE_CHECKING:
    from tests.endpoint import Endpoint

LEASE = timedelta(seconds=90)
ROWS: LiteralString = (
    "SELECT channel, status, attempts, last_error FROM reconciler.alert_deliveries ORDER BY id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A site with channels that lead to a local service.

    Attributes:
        site: The database.
        endpoint: The service.
        environment: The variables that hold the channels' addresses.
    """

    site: Site
    endpoint: Endpoint
    environment: dict[str, str] = field(default_factory=dict)

    def declare(self, *names: str, owner: str = OWNER, **fields: Any) -> None:
        """Apply channels, each with a path of its own as its address."""
        self.site.apply(*(channel(name, **fields) for name in names), owner=owner)
        for name in names:
            self.environment[variable(name)] = self.endpoint.address(name)

    def alert(self, *names: str, kind: str = "failed", job_name: str = "tidy", **fields: Any) -> int:
        """Put an alert with one message to each channel."""
        values = {"message": f"{job_name} {kind}", "run_id": None, "resolved_at": None, **fields}
        [(found,)] = self.site.rows(
            "INSERT INTO reconciler.alerts (job_name, kind, message, run_id, resolved_at)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING id",
            *(job_name, kind, values["message"], values["run_id"], values["resolved_at"]),
        )
        for name in names:
            self.site.run(
                "INSERT INTO reconciler.alert_deliveries (alert_id, channel) VALUES (%s, %s)",
                *(found, name),
            )
        return int(found)

    def deliverer(self, **options: Any) -> Deliverer:
        """Make what sends."""
        return Deliverer(
            **{
                "owner": OWNER,
                "target": "test",
                "stores": self.stores(),
                "sender": load_sender(),
                "chance": lambda: 0.0,
                **options,
            }
        )

    def stores(self) -> SecretStores:
        """Return where the addresses are: each in a variable named after its channel."""
        names = [name for (name,) in self.site.rows("SELECT name FROM reconciler.definitions")]
        secrets = {name: Secret(name=name, store="env", key=variable(name)) for name in names}
        config = Config(
            path="reconciler.yaml",
            owner=OWNER,
            jobs=(),
            targets={},
            default_target="test",
            secrets=secrets,
        )
        return SecretStores(config=config, environment=self.environment)

    def deliver(self, **options: Any) -> list[Outcome]:
        """Try everything that is due, and return what became of it."""
        outcomes: list[Outcome] = []
        with connect(self.site.dsn) as conn:
            deliver_due(self.deliverer(**options), conn, report=outcomes.append, is_stopping=lambda: False)
        return outcomes

    def make_due(self) -> None:
        """Let the time of all waits and leases be over."""
        self.site.run(
            "UPDATE reconciler.alert_deliveries SET due_at = now(),"
            " claimed_until = claimed_until - interval '1 hour' WHERE status = 'pending'"
        )

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the outbox: channel, status, attempts and error of each message."""
        return self.site.rows(ROWS)


def variable(name: str) -> str:
    """Name the variable with a channel's address."""
    return f"{name.upper()}_URL"


def statuses(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """Return channel and status of each, sorted."""
    return sorted((outcome.delivery.channel, outcome.status) for outcome in outcomes)
