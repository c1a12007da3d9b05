"""Read what psql and curl are told to do on a command line; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from reconciler.core.imports.shell_words import ShellError, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from reconciler.core.imports.shell_words import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlJob:
    """SQL that psql runs.

    Attributes:
        sql: To the letter.
        is_file: Whether it came from a file or standard input, whose statements psql sends one by one.
        database: Where; with the host before it, if one is named; "" if none is.
        role: Who; "" if nobody is named.
    """

    sql: str
    is_file: bool
    database: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpJob:
    """A request that curl sends.

    Attributes:
        url: Where.
        method: In capitals.
        headers: But for the token.
        body: What is sent; None for nothing.
        has_token: Whether it carries a bearer token, which is not kept here.
        variable: The environment variable that the token comes from; "" for a literal one.
        timeout: In seconds; 0 for none.
        has_retries: Whether it tries again.
    """

    url: str
    method: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    has_token: bool = False
    variable: str = ""
    timeout: float = 0
    has_retries: bool = False


def _split(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PSQL_VALUES: Final = _split(
    "-c -f -d -h -p -U -v -o -F -R -P -T -L --command --file --dbname --host --port --username --set "
    "--variable --output --pset --field-separator --record-separator --log-file --table-attr"
)
_PSQL_FLAGS: Final = _split(
    "-w -W -q -t -A -X -x -1 -a -e -b -E -n -H -z -0 --no-password --password --quiet --tuples-only "
    "--no-align --no-psqlrc --expanded --single-transaction --echo-all --echo-errors --echo-queries "
    "--echo-hidden --html --no-readline --csv"
)
_CURL_VALUES: Final = _split(
    "-X -H -d -m -o -A -w --request --header --data --data-raw --data-binary --data-ascii --json "
    "--max-time --connect-timeout --output --user-agent --write-out --url --retry --retry-delay "
    "--retry-max-time"
)
_CURL_FLAGS: Final = _split(
    "-f -s -S -L -v --fail --fail-with-body --silent --show-error --location --verbose --compressed "
    "--no-progress-meter --retry-all-errors --retry-connrefused"
)
_DATA: Final = frozenset({"-d", "--data", "--data-raw", "--data-binary", "--data-ascii", "--json"})
_PLACES: Final = {"dbname": "DATABASE", "host": "HOST", "user": "USER", "port": "PORT"}
_CONNECTING: Final = {
    "-h": "host",
    "--host": "host",
    "-p": "port",
    "--port": "port",
    "-U": "user",
    "--username": "user",
}
_HARMLESS_SETTINGS: Final = frozenset({"ON_ERROR_STOP", "VERBOSITY", "QUIET"})
_URI: Final = re.compile(r"postgres(?:ql)?://(?:([^:@/]*)(?::[^@/]*)?@)?([^/?]*)(?:/([^?]*))?")
_PAIR: Final = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*(.*?)[ \t]*")
_BEARER: Final = re.compile(r"bearer[ \t]+(\S+)", re.IGNORECASE)
_PRIVATE: Final = re.compile(r"auth|cookie|token|secret|passw|api-?key|^key$|-key$|signature", re.IGNORECASE)
_PRIVATE_QUERY: Final = re.compile(r"[?&][^=&]*(?:token|secret|passw|key|auth|sig)[^=&]*=", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https?://[^\s/@]+(?:/\S*)?|https?://[^\s/@]+[?#]\S*")
_SECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


def read_psql(
    command: Command, variables: Mapping[str, str], read_file: Callable[[str], str | None]
) -> SqlJob:
    """Read a call of psql.

    Args:
        command: Whose first word is psql.
        variables: Of the environment, by name.
        read_file: Gives the text of a file; None where it is not here.

    Returns:
        What it runs, and where.

    Raises:
        ShellError: That cannot be told.
    """
    options, rest = _read_options(command.words[1:], _PSQL_VALUES, _PSQL_FLAGS, "psql")
    if len(rest) > 2:
        raise ShellError("psql is given more than a database and a user")
    if any(_is_setting(name, word) for name, word in options):
        raise ShellError("it sets a variable of psql, which the SQL may use")
    texts = [(word, False) for name, word in options if name in {"-c", "--command"}]
    files = [word for name, word in options if name in {"-f", "--file"}]
    if not texts and not files and command.stdin:
        files = [Word(command.stdin)]
    texts += [(_read_sql_file(command, word, read_file), True) for word in files]
    if not texts and command.said is not None:
        texts.append((command.said, True))
    if len(texts) != 1:
        reason = (
            "it runs no SQL"
            if not texts
            else "it runs several pieces of SQL, each by itself: make a job of each"
        )
        raise ShellError(reason)
    text, is_file = texts[0]
    if text.unknown:
        raise ShellError(f"the shell puts ${text.unknown[0]} into the SQL")
    environment = {**variables, **{name: word.text for name, word in command.variables.items()}}
    where = {name: environment.get(f"PG{variable}", "") for name, variable in _PLACES.items()}
    _find_where(where, options, rest)
    place = f"{where['host']}:{where['port']}" if where["port"] else where["host"]
    database = f"{place}/{where['dbname']}" if place else where["dbname"]
    return SqlJob(sql=text.text, is_file=is_file, database=database, role=where["user"])


def _is_setting(name: str, word: Word) -> bool:
    is_setting = name in {"-v", "--set", "--variable"}
    return is_setting and word.text.partition("=")[0] not in _HARMLESS_SETTINGS


def _find_where(where: dict[str, str], options: Sequence[tuple[str, Word]], rest: Sequence[Word]) -> None:
    """Find out what psql connects to; what stands nearer to the end holds."""
    for name, word in options:
        if name in {"-d", "--dbname"}:
            _connect(where, word.text)
        elif name in _CONNECTING:
            where[_CONNECTING[name]] = word.text
    if rest:
        _connect(where, rest[0].text)
    if len(rest) > 1:
        where["user"] = rest[1].text


def _read_options(
    words: Sequence[Word], values: frozenset[str], flags: frozenset[str], program: str
) -> tuple[list[tuple[str, Word]], list[Word]]:
    """Read options and what else there is; an option with a value gives that, another one an empty word."""
    options: list[tuple[str, Word]] = []
    rest: list[Word] = []
    waiting = ""
    for number, word in enumerate(words):
        text = word.text
        if waiting:
            options.append((waiting, word))
            waiting = ""
        elif text == "--":
            rest += words[number + 1 :]
            break
        elif text.startswith("--"):
            name, sign, value = text.partition("=")
            if name in values and not sign:
                waiting = name
            elif name in (values if sign else flags):
                options.append((name, Word(value, word.unknown)))
            else:
                raise ShellError(f"what {program} does with {name} is not read")
        elif text.startswith("-") and len(text) > 1:
            waiting = _read_letters(word, options, values, flags, program)
        else:
            rest.append(word)
    if waiting:
        raise ShellError(f"{program} is given no value for {waiting}")
    return options, rest


def _read_letters(
    word: Word,
    options: list[tuple[str, Word]],
    values: frozenset[str],
    flags: frozenset[str],
    program: str,
) -> str:
    """Read options of one letter; return the one whose value comes in the next word."""
    for place in range(1, len(word.text)):
        name, value = f"-{word.text[place]}", word.text[place + 1 :]
        if name in values:
            if not value:
                return name
            options.append((name, Word(value, word.unknown)))
            return ""
        if name not in flags:
            raise ShellError(f"what {program} does with {name} is not read")
        options.append((name, Word("")))
    return ""


def _read_sql_file(command: Command, word: Word, read_file: Callable[[str], str | None]) -> Word:
    if word.text == "-":
        if command.said is None:
            raise ShellError("the SQL comes from elsewhere")
        return command.said
    if word.unknown:
        raise ShellError(f"which file it runs is up to ${word.unknown[0]}")
    name = word.text if word.text.startswith("/") or not command.folder else f"{command.folder}/{word.text}"
    text = read_file(name)
    if text is None:
        raise ShellError(f"its file {name} is not here: run the import where it is")
    return Word(text)


def _connect(where: dict[str, str], text: str) -> None:
    """Read what names a database: its name, an address, or a connection string."""
    address = _URI.fullmatch(text.partition("?")[0])
    if address is not None:
        user, host, database = address.groups()
        where["user"] = user or where["user"]
        where["host"], where["port"] = host or where["host"], ""
        where["dbname"] = database or where["dbname"]
    elif "=" in text:
        for name, value in _PAIR.findall(text):
            if name in where:
                where[name] = value.strip("'")
    else:
        where["dbname"] = text


def read_curl(command: Command) -> HttpJob:
    """Read a call of curl.

    Args:
        command: Whose first word is curl.

    Returns:
        The request.

    Raises:
        ShellError: It is not of a form that a job has, or may hold a secret that only a token may.
    """
    options, urls = _read_options(command.words[1:], _CURL_VALUES, _CURL_FLAGS, "curl")
    found = dict(options)
    urls += [word for name, word in options if name == "--url"]
    if len(urls) != 1:
        raise ShellError("it calls no address, or several: make a job of each")
    headers: dict[str, str] = {}
    if "--json" in found:
        headers |= {"Content-Type": "application/json", "Accept": "application/json"}
    agent = found.get("-A") or found.get("--user-agent")
    if agent is not None:
        headers["User-Agent"] = _need(agent, "a header")
    read = [_read_header(word, headers) for name, word in options if name in {"-H", "--header"}]
    token = next((word for word in read if word is not None), None)
    data = [_read_data(name, word) for name, word in options if name in _DATA]
    if data and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    given = found.get("-X") or found.get("--request") or Word("POST" if data else "GET")
    method = _need(given, "the method").upper()
    if method not in _METHODS:
        raise ShellError(f"a request cannot be {method} here")
    patience = _need(found.get("-m") or found.get("--max-time") or Word("0"), "the time limit")
    return HttpJob(
        url=_read_url(urls[0]),
        method=method,
        headers=headers,
        body="&".join(data) if data else None,
        has_token=token is not None,
        variable=token.unknown[0] if token is not None and len(token.unknown) == 1 else "",
        timeout=float(patience) if _SECONDS.fullmatch(patience) else 0.0,
        has_retries="--retry" in found,
    )


def _read_data(name: str, word: Word) -> str:
    if word.text.startswith("@") and name != "--data-raw":
        raise ShellError("what it sends stands in a file")
    return _need(word, "what it sends")


def _need(word: Word, what: str) -> str:
    if word.unknown:
        raise ShellError(f"the shell puts ${word.unknown[0]} into {what}")
    return word.text


def _read_header(word: Word, headers: dict[str, str]) -> Word | None:
    """Read a header; a bearer token is given back and not kept."""
    found = _HEADER.fullmatch(word.text)
    if found is None:
        raise ShellError("a header of it cannot be read")
    name, value = found.groups()
    if name.lower() == "authorization" and _BEARER.fullmatch(value):
        return word
    if _PRIVATE.search(name) or _BEARER.match(value):
        raise ShellError(f"its header {name} may be a secret, and only bearer tokens are kept as such")
    headers[name] = _need(word, f"the header {name}").partition(":")[2].strip()
    return None


def _read_url(word: Word) -> str:
    url = _need(word, "the address")
    if _PRIVATE_QUERY.search(url):
        raise ShellError("its address holds what looks like a secret: send that as a bearer token")
    if not _ADDRESS.fullmatch(url):
        raise ShellError("its address does not begin with http:// or https://, or holds a password")
    return url
