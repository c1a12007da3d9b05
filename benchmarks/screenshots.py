"""Take the dashboard's pictures for the documentation, of a sample database, with a real browser."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from playwright.sync_api import sync_playwright

from benchmarks.sample_site import fill_site, launch, open_files, tick, write_project
from reconciler.api.context import Service
from reconciler.api.service import make_service_app
from reconciler.runtime.local import start_local_server, stop_local_server
from reconciler.runtime.thread_connections import ThreadConnections
from tests.calling import serve
from tests.installations import find_test_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

FOLDER: Final = Path("docs/screenshots")
_SERVER: Final = Path(".reconciler/screenshots").absolute()
_DESKTOP: Final = (1280, 800)
_PHONE: Final = (390, 844)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A picture.

    Attributes:
        name: Of its file.
        path: Of the page.
        size: Of the window.
        scheme: light or dark.
    """

    name: str
    path: str
    size: tuple[int, int] = _DESKTOP
    scheme: Literal["light", "dark"] = "light"


SHOTS: Final = (
    Shot(name="jobs", path="/"),
    Shot(name="job", path="/jobs/update-restaurant-ratings"),
    Shot(name="queues", path="/queues/outreach"),
    Shot(name="phone", path="/", size=_PHONE),
    Shot(name="dark", path="/", scheme="dark"),
    Shot(name="drift", path="/drift"),
)
MORE: Final = tuple(
    Shot(name=f"more-{name}", path=path)
    for name, path in (
        *(
            ("calendar", "/calendar"),
            ("queues", "/queues"),
            ("revisions", "/revisions"),
            ("revision", "/revisions/3"),
        ),
        *(("alerts", "/alerts"), ("run", "/runs/1"), ("day", "/calendar?day={today}")),
        *(("queued", "/queues/outreach?status=failed"), ("login", "/login"), ("missing", "/jobs/none")),
    )
)


def take(browser: Browser, address: str, token: str, shot: Shot, folder: Path, *, full: bool) -> Path:
    """Take a picture.

    Args:
        browser: That takes it.
        address: Of the service.
        token: That signs in.
        shot: What to take.
        folder: Where to put it.
        full: Whether all of the page is wanted, however long it is.

    Returns:
        The file.
    """
    context = browser.new_context(
        viewport={"width": shot.size[0], "height": shot.size[1]},
        color_scheme=shot.scheme,
        reduced_motion="reduce",
        device_scale_factor=2 if shot.size == _PHONE else 1,
    )
    page = context.new_page()
    page.goto(f"{address}/login")
    if shot.path != "/login":
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{address}/")
        page.goto(address + shot.path.format(today=time.strftime("%Y-%m-%d", time.gmtime())))
    path = folder / f"{shot.name}.png"
    page.screenshot(path=path, full_page=full)
    context.close()
    return path


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where to [{FOLDER}]")
    parser.add_argument("--all", action="store_true", help="every page, in full, light, dark and on a phone")
    parser.add_argument("--serve", action="store_true", help="serve the sample until Enter, and take none")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None and not options.serve:
        raise SystemExit("chromium is missing: script/bootstrap --tests installs it")
    stop_local_server(_SERVER, purge=True)
    try:
        server = start_local_server(_SERVER, installation=find_test_installation(17))
        output = options.folder.absolute()
        # Places are told as from the folder of the project.
        with tempfile.TemporaryDirectory() as name, chdir(name):
            folder = Path()
            write_project(folder, server.dsn)
            token = fill_site(server.dsn, folder)
            service = Service(
                connections=ThreadConnections(server.dsn), target="production", files=open_files(folder)
            )
            with serve(make_service_app(service)) as client:
                address = f"http://127.0.0.1:{client.port}"
                if options.serve:
                    tick(server.dsn)
                    input(f"{address}  {token}\nEnter ends it. ")
                    return
                output.mkdir(parents=True, exist_ok=True)
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                    for shot in _list_shots(every=options.all):
                        tick(server.dsn)
                        if shot.path == "/drift":  # which tells of a pg_cron that starts nothing
                            launch(server.dsn)
                        path = take(browser, address, token, shot, output, full=options.all)
                        print(f"{path.name}: {path.stat().st_size // 1024} kB")
                    browser.close()
    finally:
        stop_local_server(_SERVER, purge=True)


def _list_shots(*, every: bool) -> Iterator[Shot]:
    if not every:
        yield from SHOTS
        return
    for shot in (*SHOTS[:3], *MORE, SHOTS[-1]):
        yield shot
        yield Shot(name=f"{shot.name}-dark", path=shot.path, scheme="dark")
        yield Shot(name=f"{shot.name}-phone", path=shot.path, size=_PHONE)


if __name__ == "__main__":
    main()
