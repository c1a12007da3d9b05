"""Which PostgreSQL a private server takes, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import LocalServerError
from reconciler.runtime.installations import (
    SERVER_PROGRAMS,
    choose_installation,
    find_installations,
    find_root_installation,
    read_distribution,
)

DEBIAN = "usr/lib/postgresql/{major}/bin"
NOWHERE = "/nonexistent"


def write_program(path: Path, says: str) -> None:
    """Write a shell script in the place of a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{says}\n", encoding="utf-8")
    path.chmod(0o755)


def make_installation(
    top: Path, major: int, *, pg_cron: str | None = None, folder: str = DEBIAN, version: str | None = None
) -> Path:
    """Write the programs of a server below `top`; its own pg_config tells the folder of its extensions."""
    bin_dir = top / folder.format(major=major)
    share_dir = top / f"share/{major}"
    for name in SERVER_PROGRAMS:
        write_program(bin_dir / name, f"echo 'postgres (PostgreSQL) {version or f'{major}.3 (Debian)'}'")
    write_program(bin_dir / "pg_config", f'[ "$1" = --sharedir ] && echo {share_dir} || echo {bin_dir}')
    if pg_cron is not None:
        (share_dir / "extension").mkdir(parents=True)
        (share_dir / "extension/pg_cron.control").write_text(
            f"comment = 'Job scheduler'\ndefault_version = '{pg_cron}'\n", encoding="utf-8"
        )
    return bin_dir


def test_the_newest_with_pg_cron_is_chosen(tmp_path: Path) -> None:
    """A newer server without pg_cron loses against an older one that has it."""
    for major, pg_cron in ((13, "1.4-1"), (15, "1.6"), (16, None), (9, "1.0")):
        make_installation(tmp_path, major, pg_cron=pg_cron)
    found = find_installations(top=tmp_path, search_path=NOWHERE)
    assert [one.major for one in found] == [16, 15, 13, 9]
    chosen = choose_installation(found)
    assert (chosen.major, chosen.extension_version("pg_cron")) == (15, "1.6")
    assert chosen.extension_version("http") is None


def test_a_major_version_can_be_asked_for(tmp_path: Path) -> None:
    """An older server is taken where it is asked for."""
    for major in (13, 15):
        make_installation(tmp_path, major, pg_cron="1.6")
    found = find_installations(top=tmp_path, search_path=NOWHERE)
    assert choose_installation(found, major=13).major == 13


@pytest.mark.parametrize(
    "folder",
    [
        "usr/pgsql-{major}/bin",
        "opt/homebrew/opt/postgresql@{major}/bin",
        "usr/local/opt/postgresql@{major}/bin",
        "Applications/Postgres.app/Contents/Versions/{major}/bin",
    ],
)
def test_other_systems_folders_are_searched(tmp_path: Path, folder: str) -> None:
    """The folders of RPMs, Homebrew and Postgres.app are known."""
    bin_dir = make_installation(tmp_path, 17, pg_cron="1.6", folder=folder)
    (found,) = find_installations(top=tmp_path, search_path=NOWHERE)
    assert (found.major, found.bin_dir) == (17, bin_dir)


def test_the_server_of_pg_config_is_found_once(tmp_path: Path) -> None:
    """A server in an unknown folder is found by pg_config on PATH; one in a known folder is not doubled."""
    bin_dir = make_installation(tmp_path, 17, pg_cron="1.6", folder="odd/place/bin")
    (found,) = find_installations(top=tmp_path, search_path=str(bin_dir))
    assert found.bin_dir == bin_dir
    bin_dir = make_installation(tmp_path, 15, pg_cron="1.6")
    (found,) = find_installations(top=tmp_path, search_path=str(bin_dir))
    assert found.major == 15


@pytest.mark.parametrize(
    ("version", "major"), [("18beta1", 18), ("17devel", 17), ("15.20 (Debian 15.20-0+deb12u1)", 15)]
)
def test_every_form_of_version_is_read(tmp_path: Path, version: str, major: int) -> None:
    """Betas and distributions' versions are understood."""
    make_installation(tmp_path, 1, version=version)
    (found,) = find_installations(top=tmp_path, search_path=NOWHERE)
    assert found.major == major


def test_client_packages_and_broken_programs_are_passed_over(tmp_path: Path) -> None:
    """A folder without a server, or with programs that do not run, is no installation."""
    write_program(tmp_path / DEBIAN.format(major=16) / "psql", "true")
    broken = make_installation(tmp_path, 15, pg_cron="1.6")
    write_program(broken / "postgres", "exit 127")
    silent = make_installation(tmp_path, 14, pg_cron="1.6")
    (silent / "postgres").chmod(0o644)
    assert find_installations(top=tmp_path, search_path=NOWHERE) == ()


def test_without_pg_config_debians_folder_counts(tmp_path: Path) -> None:
    """Debian's server packages come without pg_config: the folder of extensions is known all the same."""
    bin_dir = make_installation(tmp_path, 15)
    (bin_dir / "pg_config").unlink()
    (found,) = find_installations(top=tmp_path, search_path=NOWHERE)
    assert found.extension_dir == Path("/usr/share/postgresql/15/extension")


def test_a_root_directory_is_read_without_running_anything(tmp_path: Path) -> None:
    """In a root directory the newest server with pg_cron is found by its files alone."""
    for major, pg_cron in ((15, True), (17, True), (18, False)):
        bin_dir = tmp_path / DEBIAN.format(major=major)
        for name in SERVER_PROGRAMS:
            write_program(bin_dir / name, f"touch {tmp_path}/ran")
        extension_dir = tmp_path / f"usr/share/postgresql/{major}/extension"
        extension_dir.mkdir(parents=True)
        if pg_cron:
            (extension_dir / "pg_cron.control").write_text("default_version = '1.6'\n", encoding="utf-8")
    found = find_root_installation(tmp_path)
    assert found is not None
    assert (found.major, found.root) == (17, tmp_path)
    assert found.bin_dir == Path("/usr/lib/postgresql/17/bin")
    assert found.extension_version("pg_cron") == "1.6"
    assert not (tmp_path / "ran").exists()


def test_a_root_directory_without_pg_cron_is_none(tmp_path: Path) -> None:
    """A root directory that is missing or empty gives nothing."""
    assert find_root_installation(tmp_path) is None
    assert find_root_installation(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("distribution", "major", "packages"),
    [
        ("debian12", None, "apt-get install postgresql-15 postgresql-15-cron"),
        ("debian13", None, "apt-get install postgresql-17 postgresql-17-cron"),
        ("ubuntu22.04", None, "apt-get install postgresql-14 postgresql-14-cron"),
        ("debian12", 16, "apt-get install postgresql-16 postgresql-16-cron"),
        ("", None, "brew install postgresql@17 pg_cron"),
        ("", None, "docker compose up"),
    ],
)
def test_the_remedy_names_the_packages(distribution: str, major: int | None, packages: str) -> None:
    """Where nothing is installed, the error says exactly what to install on this release."""
    with pytest.raises(LocalServerError) as caught:
        choose_installation((), major=major, distribution=distribution)
    assert packages in caught.value.remedy


def test_a_server_that_lacks_only_pg_cron_is_named(tmp_path: Path) -> None:
    """Where a server is there without pg_cron, the error says so and names that version's package."""
    bin_dir = make_installation(tmp_path, 16)
    with pytest.raises(LocalServerError) as caught:
        choose_installation(find_installations(top=tmp_path, search_path=NOWHERE))
    assert f"Found PostgreSQL 16 in {bin_dir}, without pg_cron." in caught.value.message
    assert "postgresql-16-cron" in caught.value.remedy


def test_the_release_is_read(tmp_path: Path) -> None:
    """Quoted and unquoted fields are read; a system without the file has no name."""
    os_release = tmp_path / "os-release"
    os_release.write_text('NAME="Ubuntu"\nID=ubuntu\n\nVERSION_ID="24.04"\n', encoding="utf-8")
    assert read_distribution(os_release) == "ubuntu24.04"
    assert read_distribution(tmp_path / "missing") == ""
