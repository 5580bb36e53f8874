"""Whether a deployed stack is well."""

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
from pik.stores.aws.deployment.permissions import permissions
from pik.stores.aws.deployment.settings import described, recovers, settings
from pik.stores.aws.deployment.stack import ALARMS, FUNCTIONS, SOURCE, DeployedStack, look_up

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import MetricAlarmTypeDef, MetricDataQueryTypeDef, MetricTypeDef
    from mypy_boto3_sqs.literals import QueueAttributeNameType

_WELL = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
_MOVING = {"UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"}
_LOOK_BACK = timedelta(minutes=15)  # CloudWatch hears of a queue every minute, and of an idle one later


@dataclass(frozen=True, slots=True)
class AwsStackHealth:
    """Of one stack, as it was deployed when this was made."""

    deployed: DeployedStack

    def deployment(self) -> Deployment:
        here = self.deployed
        return Deployment(here.stack.name, here.region, here.account, here.stack.version, here.outputs)

    def parts(self) -> Iterator[Part]:
        yield self._stack()
        for name in FUNCTIONS:
            yield _looked(name, partial(self._function, name))
        yield _looked("processor", self._processor)
        for table in (self.deployed.stack.index_table, self.deployed.stack.state_table):
            yield _looked(f"table {table}", partial(self._table, table))
            yield _looked(f"deletion protection of {table}", partial(self._protection, table))
            yield _looked(f"point-in-time recovery of {table}", partial(self._recovery, table))
        yield _looked(f"bucket {self.deployed.stack.raw_bucket}", self._bucket)
        yield self._writing()

    def depth(self) -> Depth:
        with _brief():
            return self._depth()

    def _depth(self) -> Depth:
        wanted: tuple[QueueAttributeNameType, ...] = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        with translated("sqs"):
            here, dead = (
                self._clients.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
                for url in (self.deployed.stack.queue_url, self.deployed.stack.dead_letter_queue_url)
            )
        visible, in_flight, delayed = (int(here[name]) for name in wanted)
        buried = sum(int(dead[name]) for name in wanted)
        if not visible + in_flight + delayed:
            return Depth(visible, in_flight, delayed, buried, None)
        oldest, hidden = self._oldest()
        return Depth(visible, in_flight, delayed, buried, oldest, hidden)

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

    def _stack(self) -> Part:
        state, reason = self.deployed.state, self.deployed.reason
        if state in _MOVING:
            return Part("stack", state, True, "an update is under way")
        return Part("stack", state, state in _WELL, reason if state not in _WELL else "")

    def _function(self, name: str) -> Part:
        with translated("lambda"):
            found = self._clients.client("lambda").get_function_configuration(FunctionName=self.deployed.function(name))
        state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
        if state not in ("Active", "Inactive"):  # Inactive: nobody called it for long; the next call wakes it
            return Part(name, state, state == "Pending", found.get("StateReason", ""))
        if update == "Failed":
            return Part(name, state, False, f"its last update failed: {found.get('LastUpdateStatusReason', '')}")
        return Part(name, state, True, "" if update == "Successful" else "an update is under way")

    def _processor(self) -> Part:
        source = self.deployed.resource(SOURCE)
        if not source:
            return Part("processor", "absent", False, f"the stack has no {SOURCE}: nobody takes tasks from the queue")
        with translated("lambda"):
            state = self._clients.client("lambda").get_event_source_mapping(UUID=source)["State"]
        if state in ("Disabled", "Disabling"):
            thrown = self.deployed.parameters.get("EnableProcessor") == "false"
            why = "EnableProcessor is false" if thrown else "not by EnableProcessor, which is true"
            return Part("processor", state, False, f"the kill switch is thrown ({why}): tasks wait in the queue")
        return Part("processor", state, True, "" if state == "Enabled" else "a change is under way")

    def _table(self, table: str) -> Part:
        found = described(self.deployed, table)
        indexes = {
            each["IndexName"]: each.get("IndexStatus", "ACTIVE") for each in found.get("GlobalSecondaryIndexes", ())
        }
        behind = [f"its index {name} is {state}" for name, state in indexes.items() if state != "ACTIVE"]
        state = found["TableStatus"]
        well = state in ("ACTIVE", "UPDATING") and not behind
        return Part(f"table {table}", state, well, ", ".join(behind))

    def _protection(self, table: str) -> Part:
        on = bool(described(self.deployed, table).get("DeletionProtectionEnabled"))
        return _switch(f"deletion protection of {table}", on, "one call can delete the table")

    def _recovery(self, table: str) -> Part:
        return _switch(f"point-in-time recovery of {table}", recovers(self.deployed, table), "nothing is backed up")

    def _bucket(self) -> Part:
        bucket = self.deployed.stack.raw_bucket
        with translated("s3"):
            self._clients.client("s3").head_bucket(Bucket=bucket)
        return Part(f"bucket {bucket}", "there", True)

    def _writing(self) -> Part:
        dry = self.deployed.parameters.get("DryRun") == "true"
        return Part("dry run", "on" if dry else "off", not dry, "functions write and send nothing" if dry else "")

    def _oldest(self) -> tuple[int | None, str]:
        """The age of the oldest task, or why it cannot be known: SQS itself does not tell, CloudWatch does later."""
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
    """The health of the stack that is called so. Raises as `find_stack` does."""
    return AwsStackHealth(look_up(clients, name))


def _looked(name: str, look: Callable[[], Part]) -> Part:
    """What a look found, or why it found nothing."""
    try:
        return look()
    except StoreError as error:
        return Part(name, None, None, briefly(error))


@contextmanager
def _brief() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StoreError(briefly(error), hint=error.hint) from None


def _switch(name: str, on: bool, otherwise: str) -> Part:
    return Part(name, "on" if on else "off", on, "" if on else otherwise)


def _alarm(found: MetricAlarmTypeDef) -> Alarm:
    since = int(found["StateUpdatedTimestamp"].timestamp() * 1000) * 10**6
    return Alarm(found["AlarmName"], found["StateValue"], since, found.get("StateReason", ""))
