"""Keep one comment on a pull request of GitHub or a merge request of GitLab, and make no second.

The comment is known by its first line, and only a comment of our own account is taken for it: anybody may
write that line. Time, chance and the token come in by argument. The token goes to the forge's API alone:
redirects are not followed, plain HTTP is refused, and no message holds it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from reconciler import __version__
from reconciler.errors import ConfigError, ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reconciler.core.hidden import Hidden

Forge = Literal["github", "gitlab"]
Outcome = Literal["created", "updated", "unchanged", "none"]

TRIES: Final = 5
"""Requests in all, where the forge is down or busy."""
LONGEST_WAIT: Final = 120.0
"""Seconds; a forge that asks for a longer wait is told of instead."""
_TIMEOUT: Final = 30.0
_PAGE: Final = 100
_MOST_PAGES: Final = 100
_BODY_LIMIT: Final = 64 * 1024 * 1024
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_USUAL_WAIT: Final = 60.0
"""Seconds to wait where a forge says that it is too much, and not for how long: GitHub wants a minute."""
_BUSY: Final = re.compile(r"rate limit|abuse", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is needed to wait.

    Attributes:
        sleep: Waits for some seconds.
        clock: Tells the seconds since 1970.
        chance: Gives a number from 0 to 1, evenly distributed.
    """

    sleep: Callable[[float], None]
    clock: Callable[[], float]
    chance: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """Where the comment goes.

    Attributes:
        forge: Whose API it is.
        api: The API's address, such as `https://api.github.com` or `https://gitlab.com/api/v4`.
        project: `owner/name` on GitHub; the path or the number of the project on GitLab.
        number: Of the pull request; on GitLab the merge request's iid.
        token: May read and write comments there.
    """

    forge: Forge
    api: str
    project: str
    number: int
    token: Hidden = field(repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.api)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
            raise ConfigError(
                f"the API's address is {self.api!r}, which is not https: the token would be seen on the way",
                remedy="set GITHUB_API_URL or CI_API_V4_URL to the address that begins with https://",
            )
        if not re.fullmatch(r"[!-~]+", self.token.reveal()):
            raise ConfigError("the token holds a blank or a line break", remedy="set it anew, without them")
        if self.forge == "github" and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.project, re.ASCII):
            raise ConfigError(
                f"{self.project!r} is no repository of GitHub", remedy="write it as owner/name, with --repo"
            )

    @property
    def comments_path(self) -> str:
        """The path of the comments, from the API's address on."""
        if self.forge == "github":
            return f"/repos/{self.project}/issues/{self.number}/comments"
        return f"/projects/{quote(self.project, safe='')}/merge_requests/{self.number}/notes"

    def comment_path(self, comment: int) -> str:
        """The path of one comment."""
        if self.forge == "github":
            return f"/repos/{self.project}/issues/comments/{comment}"
        return f"{self.comments_path}/{comment}"


class _UnclearError(ReconcilerError):
    """No answer, or one that does not say whether the comment was made."""


class _NoRedirects(HTTPRedirectHandler):
    """Follows nothing: urllib would send the token along to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def put_comment(
    place: PullRequest, marker: str, text: str, *, create: bool, waiting: Waiting
) -> tuple[Outcome, str]:
    """Make the one comment say this.

    Args:
        place: The pull request.
        marker: The first line, by which the comment is known.
        text: The whole, the marker included.
        create: Whether to make the comment where there is none yet.
        waiting: For the pauses between tries.

    Returns:
        What was done, and the comment's address ("" where there is none).

    Raises:
        ReconcilerError: The forge said no, or did not answer; the message says what to do.
    """
    client = _Client(place, waiting)
    for tried in range(1, TRIES + 1):
        found = _find_own(client, place, marker)
        if found is not None:
            if _normalise(found.get("body")) == _normalise(text):
                return "unchanged", _address(found)
            method = "PATCH" if place.forge == "github" else "PUT"
            changed = client.send(method, place.comment_path(found["id"]), {"body": text})
            return "updated", _address(changed)
        if not create:
            return "none", ""
        try:
            return "created", _address(
                client.send("POST", place.comments_path, {"body": text}, is_safe=False)
            )
        except _UnclearError:
            # The comment may be there all the same: look again before another one is made.
            if tried == TRIES:
                raise
            client.pause(tried)
    raise AssertionError("the last try returns or raises")


def _find_own(client: _Client, place: PullRequest, marker: str) -> dict[str, Any] | None:
    """Find the oldest comment with the marker that this token's account wrote."""
    account: Any = None
    for comment in client.list_all(place.comments_path):
        body = comment.get("body")
        if (
            not isinstance(body, str)
            or body.split("\n", 1)[0].rstrip("\r") != marker
            or comment.get("system")
        ):
            continue
        author = comment.get("user" if place.forge == "github" else "author") or {}
        if account is None:
            account = client.find_account()
        # The token of a workflow may not ask who it is: it is a bot then, and no person can pose as one.
        if author.get("id") == account if account else author.get("type") == "Bot":
            return comment
    return None


def _normalise(text: Any) -> str:
    return str(text or "").replace("\r\n", "\n").strip()


def _address(comment: Mapping[str, Any]) -> str:
    return str(comment.get("html_url") or "")


class _Client:
    """Sends requests to one API."""

    def __init__(self, place: PullRequest, waiting: Waiting) -> None:
        self._place = place
        self._waiting = waiting
        self._opener = build_opener(_NoRedirects)

    def list_all(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield what a list holds, page by page, the oldest first."""
        order = "&sort=asc&order_by=created_at" if self._place.forge == "gitlab" else ""
        for page in range(1, _MOST_PAGES + 1):
            headers, found = self._exchange("GET", f"{path}?per_page={_PAGE}&page={page}{order}", None, True)
            if not isinstance(found, list):
                raise ReconcilerError(f"{self._describe()} answered without a list of comments")
            yield from (one for one in found if isinstance(one, dict))
            # Only whether there is a next page: its address is for nobody who holds a token to follow.
            if 'rel="next"' not in (headers.get("link") or ""):
                return

    def find_account(self) -> int:
        """Find whose token this is: the account's number; 0 where GitHub does not say."""
        try:
            return int(self.send("GET", "/user", None).get("id") or 0)
        except _DeniedError:
            if self._place.forge == "gitlab":
                raise
            return 0

    def send(self, method: str, path: str, value: Any, *, is_safe: bool = True) -> dict[str, Any]:
        """Send a request and return the object that comes back.

        Args:
            method: In capitals.
            path: From the API's address on.
            value: Sent as JSON; None for nothing.
            is_safe: Whether sending it twice is as sending it once.
        """
        _, found = self._exchange(method, path, value, is_safe)
        return found if isinstance(found, dict) else {}

    def pause(self, tried: int) -> None:
        """Wait before the next try, longer each time."""
        self._waiting.sleep(2 ** (tried - 1) * (0.5 + self._waiting.chance()))

    def _exchange(self, method: str, path: str, value: Any, is_safe: bool) -> tuple[Mapping[str, str], Any]:
        for tried in range(1, TRIES + 1):
            try:
                return self._exchange_once(method, path, value)
            except _BusyError as error:
                if tried == TRIES or error.wait > LONGEST_WAIT:
                    raise
                self._waiting.sleep(error.wait)
            except _UnclearError:
                if tried == TRIES or not is_safe:
                    raise
                self.pause(tried)
        raise AssertionError("the last try returns or raises")

    def _exchange_once(self, method: str, path: str, value: Any) -> tuple[Mapping[str, str], Any]:
        data = None if value is None else json.dumps(value).encode()
        request = Request(  # noqa: S310 - the scheme was checked
            self._place.api.rstrip("/") + path, data=data, headers=self._headers(), method=method
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as response:
                return _lower(response.headers), json.loads(response.read(_BODY_LIMIT))
        except HTTPError as error:
            with error:
                raise self._explain(error) from None
        except (URLError, HTTPException, OSError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise _UnclearError(
                f"{self._describe()} cannot be reached: {reason}",
                remedy="run it again; nothing is done twice",
            ) from None
        except ValueError:
            raise _UnclearError(f"{self._describe()} answered without JSON") from None

    def _headers(self) -> dict[str, str]:
        token = self._place.token.reveal()
        own = {"User-Agent": f"reconciler/{__version__}", "Content-Type": "application/json"}
        if self._place.forge == "gitlab":
            return {**own, "PRIVATE-TOKEN": token}
        return {
            **own,
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def _explain(self, error: HTTPError) -> ReconcilerError:
        """Make our own error of an answer."""
        headers, status = _lower(error.headers), error.code
        said = self._read_message(error)
        what = f"{self._describe()} answered {status}" + (f": {said}" if said else "")
        is_busy = status == HTTPStatus.TOO_MANY_REQUESTS or (
            status == HTTPStatus.FORBIDDEN
            and (
                headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers or _BUSY.search(said)
            )
        )
        if is_busy:
            wait = _read_wait(headers, self._waiting.clock())
            return _BusyError(
                what, remedy=f"it has had too many requests; run it again in {wait:.0f} seconds", wait=wait
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _UnclearError(what, remedy="run it again; nothing is done twice")
        kind = _DeniedError if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} else ReconcilerError
        return kind(
            what, remedy=_REMEDIES[self._place.forge].get(status // 100 if status < 400 else status, "")
        )

    def _read_message(self, error: HTTPError) -> str:
        try:
            value = json.loads(error.read(_BODY_LIMIT))
        except (ValueError, OSError, HTTPException):
            return ""
        said = value.get("message") or value.get("error") if isinstance(value, dict) else None
        text = said if isinstance(said, str) else json.dumps(said) if said else ""
        text = text.replace(self._place.token.reveal(), "***")
        return "".join(one if one.isprintable() else " " for one in text)[:300]

    def _describe(self) -> str:
        return f"the API of {self._place.project} at {urlsplit(self._place.api).hostname}"


class _DeniedError(ReconcilerError):
    """The token may not do this."""


class _BusyError(ReconcilerError):
    """Too many requests; none of them was carried out.

    Attributes:
        wait: Seconds to wait before the next.
    """

    def __init__(self, message: str, *, remedy: str, wait: float) -> None:
        super().__init__(message, remedy=remedy)
        self.wait = wait


_REMEDIES: Final[dict[Forge, dict[int, str]]] = {
    "github": {
        3: "the repository has moved: name it as it is called now, with --repo",
        401: "GITHUB_TOKEN is not valid: give the job's own, ${{ github.token }}",
        403: "GITHUB_TOKEN may not write comments: the job needs `permissions: pull-requests: write`; the "
        "token of a pull request from a fork never may",
        404: "see that --repo and --number are right, and that GITHUB_TOKEN may read them",
    },
    "gitlab": {
        3: "the project has moved: name it as it is called now, with --repo",
        401: "GITLAB_TOKEN is not valid: give an access token of the project with the scope api; "
        "CI_JOB_TOKEN cannot write comments",
        403: "GITLAB_TOKEN may not write comments: it needs the scope api and the role Reporter",
        404: "see that --repo and --number are right, and that GITLAB_TOKEN may read them",
    },
}
"""What to do about a status; 3 stands for all of 3xx."""


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _read_wait(headers: Mapping[str, str], now: float) -> float:
    """Read how many seconds to wait: the forge says it, or when its limit begins anew."""
    if (asked := headers.get("retry-after", "")).isdecimal():
        return float(asked)
    # GitHub tells of the hour's limit in every answer; only where that is used up it is what to wait for.
    for name in ("x-ratelimit-", "ratelimit-"):
        reset = headers.get(f"{name}reset", "")
        if headers.get(f"{name}remaining") == "0" and reset.isdecimal():
            return max(0.0, float(reset) - now) + 1.0
    return _USUAL_WAIT
