"""The command `comment`: show a plan as one comment on a pull request, without database and files."""

from __future__ import annotations

import os
import random
import re
import time
from typing import TYPE_CHECKING, get_args

import click

from reconciler.cli import exits
from reconciler.cli.plan_files import read_plan
from reconciler.core.hidden import Hidden
from reconciler.core.pull_comment import Subject, make_marker, render_comment, render_failure
from reconciler.errors import ConfigError
from reconciler.runtime.forges import Forge, PullRequest, Waiting, put_comment

if TYPE_CHECKING:
    from collections.abc import Mapping

_DONE = {
    "created": "Commented",
    "updated": "Comment updated",
    "unchanged": "The comment says so already",
    "none": "Nothing to change, and no comment that says otherwise",
}


@click.command()
@click.option(
    "--plan", "plan_path", metavar="FILE", help="What plan --format json printed; - is standard input."
)
@click.option("--failed", is_flag=True, help="There is no plan: say so in the comment, where there is one.")
@click.option("--target", "-t", "target_name", metavar="NAME", help="The target [that of the plan].")
@click.option("--scope", metavar="TEXT", default="", help="Tells plans of targets of one name apart.")
@click.option("--forge", type=click.Choice(get_args(Forge)), help="Where to comment [where this runs].")
@click.option("--repo", metavar="OWNER/NAME", help="The repository or project [the one this runs for].")
@click.option("--number", type=click.IntRange(min=1), help="Of the pull request [the one this runs for].")
@click.option("--commit", metavar="SHA", default="", help="Which commit was planned, to be shown.")
@click.option("--always", is_flag=True, help="Comment also where there is nothing to change.")
@click.option("--dry-run", is_flag=True, help="Print the comment, and send nothing.")
def comment(
    plan_path: str | None,
    failed: bool,
    target_name: str | None,
    scope: str,
    forge: Forge | None,
    repo: str | None,
    number: int | None,
    commit: str,
    always: bool,
    dry_run: bool,
) -> int:
    """Show a plan as one comment on a pull request, and keep that up to date.

    Each target has one comment, which is changed in place. Where there is nothing to change, a comment that
    is there says so, and none is made. The token comes from GITHUB_TOKEN or GITLAB_TOKEN.
    """
    environment = os.environ
    if failed == (plan_path is not None):
        raise click.UsageError("give either --plan FILE or --failed")
    plan = None if plan_path is None else read_plan(plan_path)
    target = target_name or (plan["target"] if plan else None)
    if target is None:
        raise click.UsageError("--failed needs --target NAME")
    subject = Subject(target=target, scope=scope, commit=commit, run_url=_find_run(environment))
    text = render_failure(subject) if plan is None else render_comment(plan, subject)
    if dry_run:
        click.echo(text, nl=False)
        return exits.DONE
    place = find_place(environment, forge=forge, repo=repo, number=number)
    outcome, address = put_comment(
        place,
        make_marker(target, scope),
        text,
        create=always or (plan is not None and not plan["empty"]),
        waiting=Waiting(sleep=time.sleep, clock=time.time, chance=random.random),
    )
    click.echo(f"{_DONE[outcome]}{f': {address}' if address else '.'}")
    return exits.DONE


def find_place(
    environment: Mapping[str, str], *, forge: Forge | None, repo: str | None, number: int | None
) -> PullRequest:
    """Find the pull request, from options and from what GitHub and GitLab tell their jobs.

    Args:
        environment: The variables.
        forge: Given by the person, as are the others; None where it is to be found.
        repo: The repository.
        number: Of the pull request.

    Returns:
        Where to comment, with the token.

    Raises:
        ConfigError: Something is missing; the message says which option or variable.
    """
    if forge is None:
        if environment.get("GITLAB_CI") == "true":
            forge = "gitlab"
        elif environment.get("GITHUB_ACTIONS") == "true":
            forge = "github"
        else:
            raise ConfigError(
                "this is no job of GitHub or GitLab", remedy="give --forge, --repo and --number"
            )
    if forge == "github":
        api = environment.get("GITHUB_API_URL") or "https://api.github.com"
        repo = repo or environment.get("GITHUB_REPOSITORY")
        found = re.fullmatch(r"refs/pull/(\d+)/.*", environment.get("GITHUB_REF", ""))
        told = found[1] if found else ""
    else:
        api = environment.get("CI_API_V4_URL") or "https://gitlab.com/api/v4"
        repo = repo or environment.get("CI_MERGE_REQUEST_PROJECT_ID") or environment.get("CI_PROJECT_ID")
        told = environment.get("CI_MERGE_REQUEST_IID", "")
    if number is None and told.isdecimal():
        number = int(told)
    if not repo or number is None:
        missing = "--repo" if not repo else "--number"
        raise ConfigError(f"this job names no pull request: give {missing}")
    variable = f"{forge.upper()}_TOKEN"
    token = environment.get(variable, "")
    if not token:
        raise ConfigError(f"{variable} is not set", remedy=f"set it to a token that may comment on {repo}")
    return PullRequest(forge=forge, api=api, project=repo, number=number, token=Hidden(token))


def _find_run(environment: Mapping[str, str]) -> str:
    """Find the address of the run that this is a job of; "" where there is none."""
    if environment.get("GITLAB_CI") == "true":
        return environment.get("CI_PIPELINE_URL", "")
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (environment.get(name, "") for name in names)
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""
