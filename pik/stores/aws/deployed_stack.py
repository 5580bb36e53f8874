"""A stack as CloudFormation describes it, and its health: its parts, queues and alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pik.errors import StoreError
from pik.ports.remote import Alarm, Deployment, Depth, Permission, Setting, StackPart
from pik.stores.aws.clients import Clients, briefly, translated
from pik.stores.aws.stack import Stack, description, direct_url, outputs_of, resources_of

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import MetricAlarmTypeDef, MetricDataQueryTypeDef, MetricTypeDef
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef
    from mypy_boto3_lambda.type_defs import (
        EventSourceMappingConfigurationResponseTypeDef,
        FunctionConfigurationResponseTypeDef,
    )
    from mypy_boto3_sqs.literals import QueueAttributeNameType

FUNCTIONS = ("IngestFunction", "RecorderFunction", "ReplayFunction", "ProcessorFunction")

PLANNER = "ReplayFunction"
"""The function that plans large replays asynchronously."""

SOURCE = "ProcessorSource"
"""The event source mapping that delivers tasks to the processor."""

RECORDER_SOURCE = "RecorderSource"
"""The one that delivers buffered requests to the recorder."""


BUFFER, LOST_REQUESTS = "IngestQueue", "IngestDeadLetterQueue"
"""The queue of buffered requests, and that of those which could not be recorded."""

ALARMS = (
    *("DeadLettersAlarm", "OldestMessageAlarm", "IngestErrorsAlarm", "ReplayErrorsAlarm", "ProcessorErrorsAlarm"),
    *("IngestThrottlesAlarm", "ReplayThrottlesAlarm", "ProcessorThrottlesAlarm", "ApiErrorsAlarm", "IngestSlowAlarm"),
    *("ReplayDroppedAlarm", "ReplayRecordLostAlarm", "ProcessorFailuresAlarm", "LagAlarm"),
    *(f"{where}{what}ThrottlesAlarm" for where in ("Index", "State", "ByBucket") for what in ("Write", "Read")),
    *("RecorderErrorsAlarm", "RecorderThrottlesAlarm", "LostRequestsAlarm", "OldestRequestAlarm"),
)
"""Logical names in template.yaml, like those above."""

_WELL = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}

_MOVING = {"UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"}

_LOOK_BACK = timedelta(minutes=15)  # CloudWatch hears of a queue every minute, and of an idle one later


@dataclass(frozen=True, slots=True)
class DeployedStack:
    """A stack as CloudFormation described it when this was made, and its health. `state` is its stack status;
    parameters and outputs are by name."""

    clients: Clients
    stack: Stack
    arn: str
    state: str
    reason: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    _physical_ids: dict[str, str] = field(default_factory=dict)

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]

    @property
    def queue(self) -> str:
        """The replay queue's name."""
        return self.stack.queue_url.rpartition("/")[2]

    @property
    def dead_letters(self) -> str:
        """The name of the queue of dead letters."""
        return self.stack.dead_letter_queue_url.rpartition("/")[2]

    def resource(self, logical: str) -> str:
        """Return the physical id of a resource of the template; empty if the stack has none. Raises StoreError."""
        if not self._physical_ids:
            paginator = self.clients.client("cloudformation").get_paginator("list_stack_resources")
            with translated("cloudformation"):
                for page in paginator.paginate(StackName=self.stack.name):
                    for each in page["StackResourceSummaries"]:
                        self._physical_ids[each["LogicalResourceId"]] = each.get("PhysicalResourceId", "")
        return self._physical_ids.get(logical, "")

    def configuration(self, function: str) -> FunctionConfigurationResponseTypeDef:
        """Return a function's configuration, by its output. Raises StoreError."""
        if not self.outputs.get(function):
            raise StoreError(f"the stack has no output {function}")
        with translated("lambda"):
            return self.clients.client("lambda").get_function_configuration(FunctionName=self.outputs[function])

    def event_source(self, logical: str = SOURCE) -> EventSourceMappingConfigurationResponseTypeDef:
        """Return a mapping that delivers what is in a queue to a function. Raises StoreError."""
        source = self.resource(logical)
        if not source:
            raise StoreError(f"the stack has no {logical}")
        with translated("lambda"):
            return self.clients.client("lambda").get_event_source_mapping(UUID=source)

    def table(self, table: str) -> TableDescriptionTypeDef:
        """Return DynamoDB's description of a table. Raises StoreError."""
        with translated("dynamodb"):
            return self.clients.client("dynamodb").describe_table(TableName=table)["Table"]

    def is_protected(self, table: str) -> bool:
        """Return whether the table is protected from being deleted. Raises StoreError."""
        return bool(self.table(table).get("DeletionProtectionEnabled"))

    def recovers(self, table: str) -> bool:
        """Return whether the table can be restored to a point in time. Raises StoreError."""
        with translated("dynamodb"):
            found = self.clients.client("dynamodb").describe_continuous_backups(TableName=table)
        state = found["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return state.get("PointInTimeRecoveryStatus") == "ENABLED"

    def deployment(self) -> Deployment:
        return Deployment(
            self.stack.name,
            self.region,
            self.account,
            self.stack.version,
            self.outputs,
            direct_url(self.stack, self.region, self.clients.profile),
        )

    def parts(self) -> Iterator[StackPart]:
        looks: dict[str, Callable[[], tuple[str, bool, str]]] = {"stack": self._stack}
        looks |= {name: partial(self._function, name) for name in FUNCTIONS}
        looks |= {"processor": self._processor, "recorder": self._recorder, "buffered requests": self._buffered}
        for table in (self.stack.index_table, self.stack.state_table):
            looks[f"table {table}"] = partial(self._table, table)
            looks[f"deletion protection of {table}"] = partial(self._protection, table)
            looks[f"point-in-time recovery of {table}"] = partial(self._recovery, table)
        looks[f"bucket {self.stack.raw_bucket}"] = self._bucket
        looks["dry run"] = self._dry_run
        for name, look in looks.items():
            try:
                yield StackPart(name, *look())
            except StoreError as error:
                yield StackPart(name, None, None, briefly(error))

    def depth(self) -> Depth:
        with _brief():
            visible, in_flight, delayed = self._messages(self.stack.queue_url)
            dead = sum(self._messages(self.stack.dead_letter_queue_url))
        oldest, hidden = self._oldest() if visible + in_flight + delayed else (None, "")
        return Depth(visible, in_flight, delayed, dead, oldest, hidden)

    def lost_requests(self) -> int:
        with _brief():
            return self._lost()

    def alarms(self) -> list[Alarm]:
        with _brief(), translated("cloudwatch"):
            names = [name for name in map(self.resource, ALARMS) if name]
            found = self.clients.client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"] if names else []
        return sorted((_alarm(each) for each in found), key=lambda alarm: alarm.name)

    def permissions(self) -> Iterator[Permission]:
        from pik.stores.aws.permissions import permissions  # late, as below: only the doctor needs it

        return permissions(self)

    def settings(self) -> Iterator[Setting]:
        from pik.stores.aws.settings import settings

        return settings(self)

    # Each of these returns a part's state, whether it is healthy, and why not.

    def _stack(self) -> tuple[str, bool, str]:
        state, reason = self.state, self.reason
        if state in _MOVING:
            return state, True, "an update is under way"
        return state, state in _WELL, reason if state not in _WELL else ""

    def _function(self, name: str) -> tuple[str, bool, str]:
        found = self.configuration(name)
        state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
        if state not in ("Active", "Inactive"):  # Inactive: it was not called for long; the next call wakes it
            return state, state == "Pending", found.get("StateReason", "")
        if update == "Failed":
            return state, False, f"its last update failed: {found.get('LastUpdateStatusReason', '')}"
        return state, True, "" if update == "Successful" else "an update is under way"

    def _processor(self) -> tuple[str, bool, str]:
        if not self.resource(SOURCE):
            return "absent", False, f"the stack has no {SOURCE}: nothing takes tasks from the queue"
        state = self.event_source()["State"]
        if state in ("Disabled", "Disabling"):
            thrown = self.parameters.get("EnableProcessor") == "false"
            why = "EnableProcessor is false" if thrown else "not by EnableProcessor, which is true"
            return state, False, f"the kill switch is thrown ({why}): tasks wait in the queue"
        return state, True, "" if state == "Enabled" else "a change is under way"

    def _table(self, table: str) -> tuple[str, bool, str]:
        found = self.table(table)
        state, indexes = found["TableStatus"], found.get("GlobalSecondaryIndexes", ())
        unready = [
            f"its index {each['IndexName']} is {each['IndexStatus']}"
            for each in indexes
            if each.get("IndexStatus", "ACTIVE") != "ACTIVE"
        ]
        return state, state in ("ACTIVE", "UPDATING") and not unready, ", ".join(unready)

    def _recorder(self) -> tuple[str, bool, str]:
        state = self.event_source(RECORDER_SOURCE)["State"]
        if state in ("Disabled", "Disabling"):
            return state, False, "buffered requests wait in the queue, which keeps them for 14 days"
        return state, True, "" if state == "Enabled" else "a change is under way"

    def _buffered(self) -> tuple[str, bool, str]:
        waiting, in_flight, delayed = self._messages(self.resource(BUFFER))
        lost = self._lost()
        state = f"{waiting + delayed:,} waiting, {in_flight:,} in flight"
        return state, not lost, f"{lost:,} could not be recorded: docs/http.md, Dead letters" if lost else ""

    def _lost(self) -> int:
        return sum(self._messages(self.resource(LOST_REQUESTS)))

    def _messages(self, url: str) -> tuple[int, int, int]:
        """Return how many messages of a queue are visible, in flight and delayed. Raises StoreError."""
        wanted: tuple[QueueAttributeNameType, ...] = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        if not url:
            raise StoreError("the stack has no such queue")
        with translated("sqs"):
            found = self.clients.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
        visible, in_flight, delayed = (int(found[name]) for name in wanted)
        return visible, in_flight, delayed

    def _protection(self, table: str) -> tuple[str, bool, str]:
        """A deployment that fails cannot remove protected tables, so that protection is a step after the first one."""
        if self.is_protected(table):
            return "on", True, ""
        step = f"aws dynamodb update-table --table-name {table} --deletion-protection-enabled"
        return "off", True, f"one call can delete the table; to protect it: {step}"

    def _recovery(self, table: str) -> tuple[str, bool, str]:
        return ("on", True, "") if self.recovers(table) else ("off", False, "nothing is backed up")

    def _bucket(self) -> tuple[str, bool, str]:
        with translated("s3"):
            self.clients.client("s3").head_bucket(Bucket=self.stack.raw_bucket)
        return "there", True, ""

    def _dry_run(self) -> tuple[str, bool, str]:
        dry_run = self.parameters.get("DryRun") == "true"
        return ("on", False, "functions write and send nothing") if dry_run else ("off", True, "")

    def _oldest(self) -> tuple[int | None, str]:
        """Return the age of the oldest task, or why it is unknown: only CloudWatch has it, and later."""
        now = datetime.now(UTC)
        metric: MetricTypeDef = {
            "Namespace": "AWS/SQS",
            "MetricName": "ApproximateAgeOfOldestMessage",
            "Dimensions": [{"Name": "QueueName", "Value": self.queue}],
        }
        query: MetricDataQueryTypeDef = {"Id": "age", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
        try:
            with translated("cloudwatch"):
                answer = self.clients.client("cloudwatch").get_metric_data(
                    MetricDataQueries=[query], StartTime=now - _LOOK_BACK, EndTime=now, ScanBy="TimestampDescending"
                )
        except StoreError as error:
            return None, briefly(error)
        (found,) = answer["MetricDataResults"]
        if not found["Values"]:
            return None, "CloudWatch has no value of the last 15 minutes"
        return int(found["Values"][0]), ""


def describe_stack(clients: Clients, name: str) -> DeployedStack:
    """Return the stack `name` as CloudFormation describes it. Raises as `find_stack` does."""
    found = description(clients, name)
    outputs = outputs_of(found)
    return DeployedStack(
        clients=clients,
        stack=resources_of(name, outputs),
        arn=found["StackId"],
        state=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        parameters={each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", ())},
        outputs=outputs,
    )


@contextmanager
def _brief() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StoreError(briefly(error), hint=error.hint) from None


def _alarm(found: MetricAlarmTypeDef) -> Alarm:
    since = int(found["StateUpdatedTimestamp"].timestamp() * 1000) * 10**6
    return Alarm(found["AlarmName"], found["StateValue"], since, found.get("StateReason", ""))
