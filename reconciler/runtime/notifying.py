"""Send one message to one address, by the library apprise; blocks until it is sent or refused.

The address is a secret: what apprise and the libraries below it log is caught here, and only a text without
any part of the address leaves this module. Knows no database.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from reconciler.core.alerts import Message
    from reconciler.core.hidden import Hidden

_LOGGERS = ("apprise", "requests", "urllib3")
_SEPARATORS = re.compile(r"[\s:/?#@&=,;+%\[\]()'\"|<>]+")
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The library, loaded and made quiet.

    Attributes:
        apprise: The module.
        asset: What the messages look like.
    """

    apprise: ModuleType
    asset: Any

    def send(self, address: Hidden, message: Message) -> str:
        """Send a message.

        Args:
            address: A notification address that apprise takes.
            message: The text.

        Returns:
            "" when the service took it, else why not, in one line without the address.
        """
        captured: list[str] = []
        _lines.captured = captured
        try:
            service = self.apprise.Apprise.instantiate(address.reveal(), asset=self.asset)
            if service is None:
                return f"its secret holds no address that apprise {self.apprise.__version__} knows"
            client = self.apprise.Apprise(asset=self.asset)
            client.add(service)
            done = client.notify(
                title=message.title,
                body=message.body,
                notify_type=getattr(self.apprise.NotifyType, message.tone.upper()),
                body_format=self.apprise.NotifyFormat.TEXT,
            )
        except Exception as error:  # noqa: BLE001 - any of a hundred services may fail in its own way
            reason = f"{type(error).__name__}: {error}"
        else:
            if done:
                return ""
            reason = "; ".join(captured) or "the service did not take it and did not say why"
        finally:
            _lines.captured = None
        return redact(reason, address)


def load_sender() -> Sender:
    """Load the library.

    Returns:
        What sends.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import apprise  # noqa: PLC0415 - the extra `alerts`: everything else works without it
    except ImportError:
        raise ConfigError(
            "alerts are sent by the library apprise, which is not installed",
            remedy='pip install "reconciler[alerts]"',
        ) from None
    # In the caller's own thread, so without a time limit of apprise: only there its log is caught, and its
    # own threads are few and keep the process from ending.
    look: dict[str, Any] = {
        "app_id": "reconciler",
        "app_desc": "reconciler",
        "async_mode": False,
        "storage_mode": "memory",
    }
    try:
        asset = apprise.AppriseAsset(**look, service_timeout=0)
    except (AttributeError, TypeError):  # earlier releases than 2.2 know no such limit
        asset = apprise.AppriseAsset(**look)
    with warnings.catch_warnings():
        # Loads all services, before several threads want them: some use what Python has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        apprise.Apprise.instantiate("json://localhost", asset=asset)
    _keep_quiet()
    return Sender(apprise=apprise, asset=asset)


def redact(text: str, address: Hidden) -> str:
    """Take an address and all its parts out of a text.

    Args:
        text: What a library said.
        address: What must not be seen.

    Returns:
        One line of at most 300 characters, with `***` for each part of the address but its scheme.
    """
    scheme, separator, rest = address.reveal().strip().partition("://")
    secret = rest if separator else scheme
    forms = {secret, unquote(secret)}
    parts = {part for form in forms for part in _SEPARATORS.split(form)} | forms
    patterns = [
        # A short part, such as the number of a port, is one only where it stands alone.
        re.escape(part) if len(part) > 3 else rf"(?<![^\W_]){re.escape(part)}(?![^\W_])"
        for part in sorted(parts - {""}, key=len, reverse=True)
    ]
    line = " ".join(text.split())
    if patterns:
        line = re.sub("|".join(patterns), "***", line, flags=re.IGNORECASE)
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"


class _Lines(threading.local):
    """What was logged by the send that goes on in this thread."""

    captured: list[str] | None = None


_lines = _Lines()


class _Catch(logging.Filter):
    """Takes every record away before any handler sees it, and keeps warnings for the send of its thread."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take a record."""
        if _lines.captured is not None and record.levelno >= logging.WARNING:
            _lines.captured.append(record.getMessage())
        return False


_CATCH = _Catch()


def _keep_quiet() -> None:
    """Let no line of the libraries reach a log or a terminal: they hold addresses, debug lines whole ones."""
    for name in _LOGGERS:
        # For loggers that are made later: they inherit the level, but no filter.
        logging.getLogger(name).setLevel(logging.WARNING)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in _LOGGERS and isinstance(logger, logging.Logger):
            logger.addFilter(_CATCH)
    warnings.filterwarnings("ignore", message="Unverified HTTPS request")
