"""Make the files that the benchmarks read: the same number of jobs and of DNS records."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CONFIG = """\
owner: bench
jobs: jobs.d
targets:
  bench: {dsn: "", prune: auto}
"""

_JOB = """\
  job-{number:05d}:
    description: Clean table number {number}
    schedule: "{minute} {hour} * * *"
    sql: |
      DELETE FROM t{number} WHERE created_at < now() - interval '30 days'
    timeout: 30s
    labels: {{team: delivery}}
"""

_OCTODNS = """\
manager:
  max_workers: 1
providers:
  config: {{class: octodns.provider.yaml.YamlProvider, directory: {folder}/desired, enforce_order: false}}
  target: {{class: octodns.provider.yaml.YamlProvider, directory: {folder}/observed, enforce_order: false}}
zones:
{zones}
"""


def write_jobs(folder: Path, *, files: int, jobs_per_file: int) -> Path:
    """Write a configuration and spec files.

    Args:
        folder: Where.
        files: How many.
        jobs_per_file: How many jobs in each.

    Returns:
        The configuration.
    """
    (folder / "jobs.d").mkdir(parents=True)
    for file in range(files):
        numbers = range(file * jobs_per_file, (file + 1) * jobs_per_file)
        jobs = [_JOB.format(number=n, minute=n % 60, hour=n // 60 % 24) for n in numbers]
        (folder / "jobs.d" / f"part-{file:03d}.yaml").write_text("jobs:\n" + "".join(jobs))
    config = folder / "reconciler.yaml"
    config.write_text(_CONFIG)
    return config


def write_records(folder: Path, *, files: int, records_per_file: int) -> Path:
    """Write the same number of DNS records for octoDNS, with an observed state equal to the desired one.

    Args:
        folder: Where.
        files: How many zones; one file each.
        records_per_file: How many records in each.

    Returns:
        The configuration of octoDNS.
    """
    zones = [f"zone{number:03d}.test." for number in range(files)]
    for side in ("desired", "observed"):
        (folder / side).mkdir(parents=True)
        for number, zone in enumerate(zones):
            lines = []
            for record in range(records_per_file):
                last = f"10.{number}.{record // 256}.{record % 256}"
                lines.append(f"record-{record:05d}:\n  ttl: 300\n  type: A\n  value: {last}\n")
            (folder / side / f"{zone}yaml").write_text("".join(lines))
    config = folder / "octodns.yaml"
    text = "\n".join(f"  {zone}: {{sources: [config], targets: [target]}}" for zone in zones)
    config.write_text(_OCTODNS.format(folder=folder, zones=text))
    return config
