"""The health of a deployed stack: its parts, queues and alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pik.errors import StoreError
from pik.ports.remote import Alarm, Deployment, Depth, Part, Permission, Setting
from pik.stores.aws.clients import Clients, briefly, translated
from pik.stores.aws.permissions import permissions
from pik.stores.aws.settings import described, recovers, settings
from pik.stores.aws.stack import ALARMS, FUNCTIONS, SOURCE, DeployedStack, describe_stack

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import MetricAlarmTypeDef, MetricDataQueryTypeDef, MetricTypeDef
    from mypy_boto3_sqs.literals import QueueAttributeNameType


_WELL = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
_MOVING = {"UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"}
_LOOK_BACK = timedelta(minutes=15)  # CloudWatch hears of a queue every minute, and of an idle one later


@dataclass(frozen=True, slots=True)
class AwsStackHealth:
    """The health of a stack as it was deployed when this was created."""

    deployed: DeployedStack

    def deployment(self) -> Deployment:
        here = self.deployed
        return Deployment(here.stack.name, here.region, here.account, here.stack.version, here.outputs)

    def parts(self) -> Iterator[Part]:
        looks: dict[str, Callable[[], tuple[str, bool, str]]] = {"stack": self._stack}
        looks |= {name: partial(self._function, name) for name in FUNCTIONS}
        looks["processor"] = self._processor
        for table in (self.deployed.stack.index_table, self.deployed.stack.state_table):
            looks[f"table {table}"] = partial(self._table, table)
            looks[f"deletion protection of {table}"] = partial(self._protection, table)
            looks[f"point-in-time recovery of {table}"] = partial(self._recovery, table)
        looks[f"bucket {self.deployed.stack.raw_bucket}"] = self._bucket
        looks["dry run"] = self._dry_run
        for name, look in looks.items():
            try:
                yield Part(name, *look())
            except StoreError as error:
                yield Part(name, None, None, briefly(error))

    def depth(self) -> Depth:
        wanted: tuple[QueueAttributeNameType, ...] = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        with _brief(), translated("sqs"):
            here, dead = (
                self._clients.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
                for url in (self.deployed.stack.queue_url, self.deployed.stack.dead_letter_queue_url)
            )
        visible, in_flight, delayed = (int(here[name]) for name in wanted)
        oldest, hidden = self._oldest() if visible + in_flight + delayed else (None, "")
        return Depth(visible, in_flight, delayed, sum(int(dead[name]) for name in wanted), oldest, hidden)

    def alarms(self) -> list[Alarm]:
        with _brief(), translated("cloudwatch"):
            names = [name for name in map(self.deployed.resource, ALARMS) if name]
            found = (
                self._clients.client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"] if names else []
            )
        return sorted((_alarm(each) for each in found), key=lambda alarm: alarm.name)

    def permissions(self) -> Iterator[Permission]:
        return permissions(self.deployed)

    def settings(self) -> Iterator[Setting]:
        return settings(self.deployed)

    @property
    def _clients(self) -> Clients:
        return self.deployed.clients

    # Each of these returns a part's state, whether it is healthy, and why not.

    def _stack(self) -> tuple[str, bool, str]:
        state, reason = self.deployed.state, self.deployed.reason
        if state in _MOVING:
            return state, True, "an update is under way"
        return state, state in _WELL, reason if state not in _WELL else ""

    def _function(self, name: str) -> tuple[str, bool, str]:
        with translated("lambda"):
            found = self._clients.client("lambda").get_function_configuration(FunctionName=self.deployed.function(name))
        state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
        if state not in ("Active", "Inactive"):  # Inactive: it was not called for long; the next call wakes it
            return state, state == "Pending", found.get("StateReason", "")
        if update == "Failed":
            return state, False, f"its last update failed: {found.get('LastUpdateStatusReason', '')}"
        return state, True, "" if update == "Successful" else "an update is under way"

    def _processor(self) -> tuple[str, bool, str]:
        source = self.deployed.resource(SOURCE)
        if not source:
            return "absent", False, f"the stack has no {SOURCE}: nothing takes tasks from the queue"
        with translated("lambda"):
            state = self._clients.client("lambda").get_event_source_mapping(UUID=source)["State"]
        if state in ("Disabled", "Disabling"):
            thrown = self.deployed.parameters.get("EnableProcessor") == "false"
            why = "EnableProcessor is false" if thrown else "not by EnableProcessor, which is true"
            return state, False, f"the kill switch is thrown ({why}): tasks wait in the queue"
        return state, True, "" if state == "Enabled" else "a change is under way"

    def _table(self, table: str) -> tuple[str, bool, str]:
        found = described(self.deployed, table)
        state, indexes = found["TableStatus"], found.get("GlobalSecondaryIndexes", ())
        unready = [
            f"its index {each['IndexName']} is {each['IndexStatus']}"
            for each in indexes
            if each.get("IndexStatus", "ACTIVE") != "ACTIVE"
        ]
        return state, state in ("ACTIVE", "UPDATING") and not unready, ", ".join(unready)

    def _protection(self, table: str) -> tuple[str, bool, str]:
        protected = bool(described(self.deployed, table).get("DeletionProtectionEnabled"))
        return ("on", True, "") if protected else ("off", False, "one call can delete the table")

    def _recovery(self, table: str) -> tuple[str, bool, str]:
        return ("on", True, "") if recovers(self.deployed, table) else ("off", False, "nothing is backed up")

    def _bucket(self) -> tuple[str, bool, str]:
        with translated("s3"):
            self._clients.client("s3").head_bucket(Bucket=self.deployed.stack.raw_bucket)
        return "there", True, ""

    def _dry_run(self) -> tuple[str, bool, str]:
        dry_run = self.deployed.parameters.get("DryRun") == "true"
        return ("on", False, "functions write and send nothing") if dry_run else ("off", True, "")

    def _oldest(self) -> tuple[int | None, str]:
        """Return the age of the oldest task, or why it is unknown: only CloudWatch has it, and later."""
        now = datetime.now(UTC)
        metric: MetricTypeDef = {
            "Namespace": "AWS/SQS",
            "MetricName": "ApproximateAgeOfOldestMessage",
            "Dimensions": [{"Name": "QueueName", "Value": self.deployed.queue}],
        }
        query: MetricDataQueryTypeDef = {"Id": "age", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
        try:
            with translated("cloudwatch"):
                answer = self._clients.client("cloudwatch").get_metric_data(
                    MetricDataQueries=[query], StartTime=now - _LOOK_BACK, EndTime=now, ScanBy="TimestampDescending"
                )
        except StoreError as error:
            return None, briefly(error)
        (found,) = answer["MetricDataResults"]
        if not found["Values"]:
            return None, "CloudWatch has no value of the last 15 minutes"
        return int(found["Values"][0]), ""


def health_of(clients: Clients, name: str) -> AwsStackHealth:
    """Return the health of the stack `name`. Raises as `find_stack` does."""
    return AwsStackHealth(describe_stack(clients, name))


@contextmanager
def _brief() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StoreError(briefly(error), hint=error.hint) from None


def _alarm(found: MetricAlarmTypeDef) -> Alarm:
    since = int(found["StateUpdatedTimestamp"].timestamp() * 1000) * 10**6
    return Alarm(found["AlarmName"], found["StateValue"], since, found.get("StateReason", ""))
