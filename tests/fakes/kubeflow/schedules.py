"""Recurring runs on a clock that tests move, started as the controller of scheduled workflows starts them.

Its expressions have six fields, seconds first (robfig/cron 1.2); with the last left out they have five, which are then
second, minute, hour, day and month. With `no_catchup` the last of the missed times is made up for, otherwise all.
"""

from __future__ import annotations

import random
import string
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import kfp_server_api as api
from croniter import croniter

from tests.fakes.kubeflow.execution import ENDED, fnv
from tests.fakes.kubeflow.messages import page, parse
from tests.fakes.vertex.errors import ServiceError, invalid, not_found


class Schedules:
    """`recurringruns`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.items: dict[str, Any] = {}
        self._last: dict[str, datetime] = {}
        self._started: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self.clock = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)

    def answer(self, verb: str, identity: str, action: str, query: dict[str, str], content: bytes) -> Any:
        if not identity:
            return self._create(content) if verb == "POST" else self._list(query)
        if identity not in self.items:
            raise not_found(f"RecurringRun {identity}")
        item = self.items[identity]
        if verb == "DELETE":
            del self.items[identity]
            return {}
        if action in ("enable", "disable"):
            item.status = {"enable": "ENABLED", "disable": "DISABLED"}[action]
            return {}
        return item

    def _list(self, query: dict[str, str]) -> Any:
        self._server.require_place(query)
        found, token, total = page(self.items.values(), query, lambda item: {
            "display_name": item.display_name, "recurring_run_id": item.recurring_run_id,
            "created_at": item.created_at, "updated_at": item.updated_at})  # fmt: skip
        return api.V2beta1ListRecurringRunsResponse(recurring_runs=found, total_size=total, next_page_token=token)

    def _create(self, content: bytes) -> Any:
        item = parse("V2beta1RecurringRun", content)
        if not item.display_name:
            raise invalid("The recurring run name is empty.")
        if not item.trigger or not item.trigger.cron_schedule:
            raise invalid("The recurring run has no trigger.")
        self._times(item, self.clock)
        if not 1 <= int(item.max_concurrency or 0) <= 10:
            raise invalid("max_concurrency is out of [1, 10].")
        if item.mode not in ("ENABLE", "DISABLE"):
            raise invalid("Mode of a recurring run must be ENABLE or DISABLE.")
        self._server.check(item)
        item.recurring_run_id = str(uuid.uuid4())
        item.status = "ENABLED" if item.mode == "ENABLE" else "DISABLED"
        item.created_at = item.updated_at = self.clock
        self.items[item.recurring_run_id] = item
        self._last[item.recurring_run_id] = self.clock
        self._started[item.recurring_run_id] = []
        sanitized = "".join(c for c in item.display_name.lower() if c.isalnum())[:25]
        self._names[item.recurring_run_id] = sanitized + "".join(random.choices(string.ascii_lowercase, k=5))
        return item

    @staticmethod
    def _times(item: Any, since: datetime) -> Any:
        fields = item.trigger.cron_schedule.cron.split()
        if len(fields) not in (5, 6):
            raise invalid(f"Schedule cron is not a supported format: Expected 5 to 6 fields, found {len(fields)}")
        fields = [*fields, "*"] if len(fields) == 5 else fields
        try:
            return croniter(" ".join(fields), since, second_at_beginning=True)
        except ValueError as error:
            raise invalid(f"Schedule cron is not a supported format: {error}") from None

    def advance(self, **by: float) -> list[str]:
        """Moves the clock on (`days=1`) and starts what is due; ids of the runs."""
        self.clock += timedelta(**by)
        with self._server.lock:
            return [run for item in list(self.items.values()) for run in self._fire(item)]

    def _fire(self, item: Any) -> list[str]:
        if item.status != "ENABLED":
            return []
        times, due = self._times(item, self._last[item.recurring_run_id]), []
        end = item.trigger.cron_schedule.end_time
        while (time := times.get_next(datetime)) <= self.clock and (end is None or time <= end):
            due.append(time)
        made = []
        for time in due[-1:] if item.no_catchup else due:
            active = [run for run in self._started[item.recurring_run_id] if self._server.runs[run].state not in ENDED]
            if len(active) >= int(item.max_concurrency):
                break
            self._last[item.recurring_run_id] = time
            made.append(self._start(item))
        return made

    def _start(self, item: Any) -> str:
        started = self._started[item.recurring_run_id]
        name = f"{self._names[item.recurring_run_id]}-{len(started) + 1}"
        run = api.V2beta1Run(
            display_name=f"{name}-{fnv(name)}", experiment_id=item.experiment_id, pipeline_spec=item.pipeline_spec,
            runtime_config=item.runtime_config, service_account=item.service_account,
            recurring_run_id=item.recurring_run_id,
        )  # fmt: skip
        identity = self._server.begin(run).run_id
        started.append(identity)
        return str(identity)


def refused() -> ServiceError:
    return invalid("Invalid resource references for listing. Namespace is empty in multi-user mode.")
