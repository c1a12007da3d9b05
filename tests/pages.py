"""A browser without a browser: signs in to the dashboard, reads pages as trees, sends forms that it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from httpx import Response

    from tests.served import Served

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


@dataclass(slots=True)
class Node:
    """An element.

    Attributes:
        tag: Its name.
        attributes: By name; "" for those without a value.
        children: Elements and texts, in order.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, its blanks as one."""
        return " ".join("".join(self._texts()).split())

    def find_all(self, tag: str = "", **attributes: str) -> Iterator[Node]:
        """Find elements below it; `class_` has to be among the classes."""
        for child in self.children:
            if isinstance(child, Node):
                if tag in ("", child.tag) and all(_has(child, *one) for one in attributes.items()):
                    yield child
                yield from child.find_all(tag, **attributes)

    def find(self, tag: str = "", **attributes: str) -> Node:
        """Find the first such element."""
        found = next(self.find_all(tag, **attributes), None)
        assert found is not None, f"no {tag} {attributes} in {self.text[:500]}"
        return found

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            yield from child._texts() if isinstance(child, Node) else [child]
            yield " " if isinstance(child, Node) and child.tag not in ("b", "code", "span") else ""


def _has(node: Node, name: str, value: str) -> bool:
    if name == "class_":
        return value in node.attributes.get("class", "").split()
    return node.attributes.get(name.replace("_", "-")) == value


class _Reader(HTMLParser):
    """Builds the tree, and refuses what a browser would have to repair."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("#document")]
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of <{tag}> comes twice: {names}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        if "id" in node.attributes:
            assert node.attributes["id"] not in self.ids, f"two elements are {node.attributes['id']}"
            self.ids.add(node.attributes["id"])
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(text: str) -> Node:
    """Read HTML strictly: each element ends, in its place, and no id comes twice."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> does not end"
    return reader.open[0]


class Browser:
    """Somebody who looks at the dashboard.

    Attributes:
        served: The service.
    """

    def __init__(self, served: Served, *scopes: str) -> None:
        """Sign in with a token of these scopes; without any, do not."""
        self.served = served
        served.client.cookies.clear()
        if scopes:
            answer = self.send("/login", {"token": served.token(*scopes)})
            assert answer.status_code == 303, answer.text

    def get(self, path: str, status: int = 200, **headers: str) -> Response:
        """Get something, without going on where it sends one."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer: Response = self.served.client.get(path, headers=names, follow_redirects=False)
        assert answer.status_code == status, (answer.status_code, answer.text[:800])
        return answer

    def look(self, path: str, status: int = 200) -> Node:
        """Look at a page."""
        return read_page(self.get(path, status).text)

    def send(self, path: str, values: Mapping[str, str], site: str = "same-origin") -> Response:
        """Send a form, from a page of that site."""
        answer: Response = self.served.client.post(
            path,
            data=values,
            headers={"Sec-Fetch-Site": site},
            follow_redirects=False,
        )
        return answer

    def press(self, page: Node, action: str, **values: str) -> Node:
        """Send a form of a page as it stands there, with these values; return the page that comes of it."""
        form = page.find("form", action=action, method="post")
        hidden = {
            one.attributes["name"]: one.attributes["value"] for one in form.find_all("input", type="hidden")
        }
        answer = self.send(action, {**hidden, **values})
        assert answer.status_code == 303, (answer.status_code, answer.text[:800])
        return self.look(answer.headers["location"])
