"""Schedules as Kubeflow's recurring runs, each called by its name.

The controller reads six fields, seconds first: of five it would take the minutes for seconds without a word. Its time
zone is one for all schedules (CRON_SCHEDULE_TIMEZONE of ml-pipeline-scheduledworkflow, UTC unless set).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from core.errors import UserError
from pipelines.cron import next_times, split_zone, with_zone
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.runs import equals
from pipelines.kubeflow.submit import experiment, payload
from pipelines.service import Entry, Plan, the_schedule

_PAGE = 100


def create(cluster: Cluster, name: str, plan: Plan, cron: str, zone: str, *, end: str = "", runs: int = 0) -> Entry:
    """Makes a schedule; missed runs are not caught up, and a retraining that is late does not meet the next one.

    Raises:
        UserError: the name is taken, or cron, zone, end or runs cannot be had.
    """
    if runs:
        raise UserError("--runs: is for Vertex AI; on Kubeflow use --end")
    fields = _fields(cluster, cron, zone)
    if any(entry.name == name for entry in listed(cluster)):
        raise UserError(f"schedule {name!r}: there is one already; change it with `textdiffusion schedule update`")
    return _entry(cluster, _create(cluster, name, plan, f"0 {fields}", _time(end)))


def _create(cluster: Cluster, name: str, plan: Plan, cron: str, end: Any, *, enabled: bool = True) -> Any:
    with cluster.one_line(f"schedule {name}"):
        group = experiment(cluster, plan.submission.experiment)
        return _send(cluster, name, {**payload(cluster, plan.submission), "experiment_id": group}, cron, end, enabled)


def _send(cluster: Cluster, name: str, content: dict[str, Any], cron: str, end: Any, enabled: bool) -> Any:
    import kfp_server_api as api

    body = api.V2beta1RecurringRun(
        display_name=name,
        mode=api.RecurringRunMode.ENABLE if enabled else api.RecurringRunMode.DISABLE,
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron, end_time=end)),
        no_catchup=True,
        max_concurrency="1",
        **content,
    )
    return cluster.client._recurring_run_api.recurring_run_service_create_recurring_run(recurring_run=body)


def update(cluster: Cluster, name: str, plan: Plan | None, *, cron: str = "", zone: str = "") -> Entry:
    """Changes what a schedule runs, its times, or both. The API changes no recurring run, so another takes its place:
    it is made asleep, the old one is removed, and then it is woken.

    Raises:
        UserError: there is no such schedule, nothing is changed, or cron or zone cannot be had.
    """
    entry = find(cluster, name)
    if not (plan or cron or zone):
        raise UserError(f"schedule {name!r}: nothing to change; give --cron, --timezone, --set or --job")
    with cluster.one_line(f"schedule {name}"):
        old = cluster.client.get_recurring_run(entry.resource)
    times = old.trigger.cron_schedule
    changed = f"0 {_fields(cluster, cron or split_zone(entry.cron)[1], zone)}" if cron or zone else times.cron
    awake = entry.state == "active"
    if plan:
        made = _create(cluster, entry.name, plan, changed, _real(times.end_time), enabled=False)
    else:
        kept = ("pipeline_spec", "runtime_config", "service_account", "experiment_id")
        with cluster.one_line(f"schedule {name}"):
            content = {key: getattr(old, key) for key in kept}
            made = _send(cluster, entry.name, content, changed, _real(times.end_time), False)
    with cluster.one_line(f"schedule {name}"):
        cluster.client.delete_recurring_run(entry.resource)
        if awake:
            cluster.client.enable_recurring_run(made.recurring_run_id)
        return _entry(cluster, cluster.client.get_recurring_run(made.recurring_run_id))


def listed(cluster: Cluster) -> list[Entry]:
    """All schedules of TextDiffusion jobs."""
    entries: list[Entry] = []
    token = ""
    while True:
        with cluster.one_line("schedules"):
            page = cluster.client.list_recurring_runs(
                namespace=cluster.namespace, page_size=_PAGE, page_token=token, sort_by="created_at desc"
            )
            entries += [_entry(cluster, item) for item in page.recurring_runs or () if _job(item)]
        token = page.next_page_token or ""
        if not token:
            return entries


def find(cluster: Cluster, name: str) -> Entry:
    """The schedule called `name`.

    Raises:
        UserError: there is none, or the name is not unique.
    """
    return the_schedule(listed(cluster), name)


def pause(cluster: Cluster, name: str) -> None:
    """No more runs until `resume`.

    Raises:
        UserError: it is paused.
    """
    _switch(cluster, name, "active", "disable_recurring_run")


def resume(cluster: Cluster, name: str, *, catch_up: bool = False) -> None:
    """Runs start again.

    Raises:
        UserError: it is active, or missed runs are wanted, which Kubeflow starts only where all schedules do.
    """
    if catch_up:
        raise UserError("--catch-up: is for Vertex AI; on Kubeflow missed runs are not started: `textdiffusion deploy`")
    _switch(cluster, name, "paused", "enable_recurring_run")


def _switch(cluster: Cluster, name: str, expected: str, how: str) -> None:
    entry = find(cluster, name)
    if entry.state != expected:
        raise UserError(f"schedule {name!r}: is {entry.state}")
    with cluster.one_line(f"schedule {name}"):
        getattr(cluster.client, how)(entry.resource)


def delete(cluster: Cluster, name: str) -> None:
    """Removes a schedule; the runs it started stay."""
    entry = find(cluster, name)
    with cluster.one_line(f"schedule {name}"):
        cluster.client.delete_recurring_run(entry.resource)


def _fields(cluster: Cluster, cron: str, zone: str) -> str:
    """The five fields, checked.

    Raises:
        UserError: they are not valid, or meant in another zone than the controller's.
    """
    own, fields = split_zone(with_zone(cron, zone or cluster.settings.kubeflow_timezone))
    if own != cluster.settings.kubeflow_timezone:
        raise UserError(
            f"--timezone {own}: Kubeflow starts all schedules in its controller's time zone,"
            f" {cluster.settings.kubeflow_timezone}; if CRON_SCHEDULE_TIMEZONE there is another, write"
            f" `kubeflow_timezone: {own}` into textdiffusion.yaml"
        )
    return fields


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--end {text!r}: expected an RFC 3339 time, such as 2027-01-31T00:00:00Z") from None
    if time.tzinfo is None:
        raise UserError(f"--end {text!r}: has no time zone; end it with Z or +01:00")
    return time


def _job(item: Any) -> str:
    parameters = (item.runtime_config and item.runtime_config.parameters) or {}
    return str(parameters.get("model_name", "")) if "registry" in parameters else ""


def _entry(cluster: Cluster, item: Any) -> Entry:
    zone = cluster.settings.kubeflow_timezone
    seconds, _, fields = str(item.trigger.cron_schedule.cron).partition(" ")
    active = item.status == "ENABLED"
    end = _real(item.trigger.cron_schedule.end_time)
    soon = next_times(fields, zone, 1)[0] if active and seconds == "0" else None
    started = cluster.client.list_runs(
        namespace=cluster.namespace, page_size=1, sort_by="created_at desc",
        filter=equals("recurring_run_id", item.recurring_run_id),
    )  # fmt: skip
    newest = started.runs[0].display_name if started.runs else ""
    return Entry(
        item.display_name,
        _job(item),
        f"CRON_TZ={zone} {fields}",
        "active" if active else "paused",
        soon.isoformat() if soon and not (end and soon > end) else "",
        newest,
        int(started.total_size or len(started.runs or ())),
        item.recurring_run_id,
    )


def _real(time: Any) -> Any:
    """A time, or None for the year in which protobuf's or Go's clock begins."""
    return time if time is not None and time.year > 1970 else None
