"""Whether a deployed stack is set as the kit needs it: as template.yaml sets it, and nobody changed it since."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pik.errors import StoreError
from pik.ports.remote import Setting
from pik.stores.aws.clients import Refused, briefly, translated
from pik.stores.aws.deployment.stack import ALARMS, FUNCTIONS, SOURCE, DeployedStack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef
    from mypy_boto3_lambda.type_defs import EventSourceMappingConfigurationResponseTypeDef
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs.literals import QueueAttributeNameType

VISIBILITY = 6
"""How many times the processor's timeout a task stays hidden at least, as Lambda asks for."""

_PUBLIC = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")

Found = tuple[bool, str]
"""Whether it is as it should be, and how it is."""


def settings(deployed: DeployedStack) -> Iterator[Setting]:
    """Every setting, one look each."""
    for one in (_Bucket, _Tables, _Queue, _Alarms):
        for name, needed, command, look in one(deployed).settings():
            try:
                right, found = look()
            except StoreError as error:
                yield Setting(name, None, briefly(error), needed, command)
            else:
                yield Setting(name, right, found, needed, command)


Look = tuple[str, str, str, Callable[[], Found]]
"""A setting's name, what is needed, the command that mends it, and how to look."""


class _Bucket:
    def __init__(self, deployed: DeployedStack) -> None:
        self._deployed = deployed
        self._bucket = deployed.stack.raw_bucket

    @property
    def _s3(self) -> S3Client:
        return self._deployed.clients.client("s3")

    def settings(self) -> Iterator[Look]:
        bucket, key = self._bucket, self._deployed.parameters.get("KmsKeyArn", "")
        put = f"aws s3api put-{{}} --bucket {bucket}"
        versioned = put.format("bucket-versioning") + " --versioning-configuration Status=Enabled"
        yield "versioning of the bucket", "Enabled", versioned, self._versioning
        rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
        rules = json.dumps({"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]})
        encrypted = put.format("bucket-encryption") + f" --server-side-encryption-configuration '{rules}'"
        yield "encryption of the bucket", key or "AES256 or aws:kms", encrypted, self._encryption
        blocked = f"aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration "
        blocked += ",".join(f"{name}=true" for name in _PUBLIC)
        yield "public access to the bucket", "blocked in all four ways", blocked, self._public
        policy = (
            put.format("bucket-policy") + " --policy file://policy.json, with {} of template.yaml's RawBucketPolicy"
        )
        for name, sid, look in (
            ("TLS only", "DenyPlainHttp", self._tls),
            ("overwriting of raw", "DenyOverwritingRaw", self._overwriting),
            ("deleting of raw", "DenyDeletingRaw", self._deleting),
        ):
            yield f"bucket policy: {name}", "a statement that denies it", policy.format(sid), look
        yield "Object Lock of the bucket", self._lock_wanted(), self._lock_command(put), self._lock

    def _versioning(self) -> Found:
        with translated("s3"):
            state = self._s3.get_bucket_versioning(Bucket=self._bucket).get("Status", "never enabled")
        return state == "Enabled", state

    def _encryption(self) -> Found:
        with translated("s3"):
            answer = self._s3.get_bucket_encryption(Bucket=self._bucket)
        rule = answer["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
        key = self._deployed.parameters.get("KmsKeyArn", "")
        found = rule.get("KMSMasterKeyID") or rule["SSEAlgorithm"]
        return (found == key if key else True), found

    def _public(self) -> Found:
        try:
            with translated("s3"):
                answer = self._s3.get_public_access_block(Bucket=self._bucket)["PublicAccessBlockConfiguration"]
        except Refused as error:
            if error.code != "NoSuchPublicAccessBlockConfiguration":
                raise
            answer = {}
        off = [name for name in _PUBLIC if not answer.get(name)]
        return not off, f"not set: {', '.join(off)}" if off else "blocked in all four ways"

    def _statements(self) -> list[Any]:
        try:
            with translated("s3"):
                policy = json.loads(self._s3.get_bucket_policy(Bucket=self._bucket)["Policy"])
        except Refused as error:
            if error.code != "NoSuchBucketPolicy":
                raise
            return []
        return [
            each
            for each in _list(policy["Statement"])
            if each["Effect"] == "Deny" and each.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        ]

    def _tls(self) -> Found:
        arn = f"arn:{self._deployed.partition}:s3:::{self._bucket}"
        return _denied(
            any(
                self._conditions(each) == {("Bool", "aws:SecureTransport", "false")}
                and "s3:*" in _list(each["Action"])
                and {arn, f"{arn}/*"} <= set(_list(each["Resource"]))
                for each in self._statements()
            )
        )

    def _overwriting(self) -> Found:
        bare = ("Null", "s3:if-none-match", "true")
        created = ("Bool", "s3:ObjectCreationOperation", "true")  # no part of a multipart upload, which takes none
        return _denied(
            any(
                self._conditions(each) in ({bare}, {bare, created}) and self._covers(each, "s3:PutObject")
                for each in self._statements()
            )
        )

    def _deleting(self) -> Found:
        actions = ("s3:DeleteObject", "s3:DeleteObjectVersion")
        return _denied(
            any(
                not self._conditions(each) and all(self._covers(each, one) for one in actions)
                for each in self._statements()
            )
        )

    def _conditions(self, statement: Any) -> set[tuple[str, str, str]]:
        """Operator, key and value of each condition, but for the exemption of the break-glass role."""
        role = self._deployed.parameters.get("BreakGlassRoleArn", "")
        found = {
            (operator, key, str(one))
            for operator, tests in statement.get("Condition", {}).items()
            for key, value in tests.items()
            for one in _list(value)
        }
        return found - {("ArnNotEquals", "aws:PrincipalArn", role)}

    def _covers(self, statement: Any, action: str) -> bool:
        arn = f"arn:{self._deployed.partition}:s3:::{self._bucket}"
        resources = {f"{arn}/raw/*", f"{arn}/*"} & set(_list(statement["Resource"]))
        return bool(resources) and bool({action, "s3:*"} & set(_list(statement["Action"])))

    def _lock_rule(self) -> dict[str, Any]:
        mode = self._deployed.parameters.get("ObjectLockMode", "NONE")
        return {} if mode == "NONE" else {"Mode": mode, "Days": int(self._deployed.parameters["ObjectLockDays"])}

    def _lock_wanted(self) -> str:
        return f"able to lock, {_locks(self._lock_rule())}"

    def _lock_command(self, put: str) -> str:
        rule = self._lock_rule()
        wanted = {"ObjectLockEnabled": "Enabled", **({"Rule": {"DefaultRetention": rule}} if rule else {})}
        return f"{put.format('object-lock-configuration')} --object-lock-configuration '{json.dumps(wanted)}'"

    def _lock(self) -> Found:
        try:
            with translated("s3"):
                found = self._s3.get_object_lock_configuration(Bucket=self._bucket)["ObjectLockConfiguration"]
        except Refused as error:
            if error.code != "ObjectLockConfigurationNotFoundError":
                raise
            return False, "not able to lock"
        rule = found.get("Rule", {}).get("DefaultRetention", {})
        able = found.get("ObjectLockEnabled") == "Enabled"
        return able and rule == self._lock_rule(), f"{'' if able else 'not '}able to lock, {_locks(rule)}"


class _Tables:
    def __init__(self, deployed: DeployedStack) -> None:
        self._deployed = deployed

    def settings(self) -> Iterator[Look]:
        for table in (self._deployed.stack.index_table, self._deployed.stack.state_table):
            recover = "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
            command = f"aws dynamodb update-continuous-backups --table-name {table} {recover}"
            yield f"point-in-time recovery of {table}", "on", command, partial(self._recovery, table)
            command = f"aws dynamodb update-table --table-name {table} --deletion-protection-enabled"
            yield f"deletion protection of {table}", "on", command, partial(self._protection, table)

    def _recovery(self, table: str) -> Found:
        return _on(recovers(self._deployed, table))

    def _protection(self, table: str) -> Found:
        return _on(bool(described(self._deployed, table).get("DeletionProtectionEnabled")))


class _Queue:
    def __init__(self, deployed: DeployedStack) -> None:
        self._deployed = deployed

    def settings(self) -> Iterator[Look]:
        url, receives = self._deployed.stack.queue_url, self._deployed.parameters.get("MaxReceives", "6")
        set_ = f"aws sqs set-queue-attributes --queue-url {url} --attributes"
        redrive = {"deadLetterTargetArn": self._dead_arn(), "maxReceiveCount": receives}
        attributes = json.dumps({"RedrivePolicy": json.dumps(redrive)})
        needed = f"to {self._deployed.dead_letters} after {receives} attempts"
        yield "redrive of the replay queue", needed, f"{set_} '{attributes}'", self._redrive
        needed = f"{VISIBILITY} × the processor's timeout, or more"
        command = f"{set_} VisibilityTimeout={{}}"
        yield "visibility timeout of the replay queue", needed, self._visible_command(command), self._visibility
        change = f"aws lambda update-event-source-mapping --uuid {self._source()}"
        report = f"{change} --function-response-types ReportBatchItemFailures"
        yield "answers of the processor", "ReportBatchItemFailures", report, self._reports
        wanted = "Disabled" if self._deployed.parameters.get("EnableProcessor") == "false" else "Enabled"
        switch = "--enabled" if wanted == "Enabled" else "--no-enabled"
        yield "the processor's switch", f"{wanted}, as EnableProcessor says", f"{change} {switch}", self._switch

    def _dead_arn(self) -> str:
        here = self._deployed
        return f"arn:{here.partition}:sqs:{here.region}:{here.account}:{here.dead_letters}"

    def _attribute(self, name: QueueAttributeNameType) -> str:
        with translated("sqs"):
            answer = self._deployed.clients.client("sqs").get_queue_attributes(
                QueueUrl=self._deployed.stack.queue_url, AttributeNames=[name]
            )
        return answer.get("Attributes", {}).get(name, "")

    def _redrive(self) -> Found:
        text = self._attribute("RedrivePolicy")
        if not text:
            return False, "none: a task that fails is tried for 4 days"
        policy = json.loads(text)
        target, receives = policy["deadLetterTargetArn"], str(policy["maxReceiveCount"])
        right = target == self._dead_arn() and receives == self._deployed.parameters.get("MaxReceives", "6")
        return right, f"to {target.rpartition(':')[2]} after {receives} attempts"

    def _timeout(self) -> int:
        name = self._deployed.function(FUNCTIONS[-1])
        with translated("lambda"):
            answer = self._deployed.clients.client("lambda").get_function_configuration(FunctionName=name)
        return answer["Timeout"]

    def _visible_command(self, command: str) -> str:
        try:
            return command.format(VISIBILITY * self._timeout())
        except StoreError:
            return command.format("SECONDS")

    def _visibility(self) -> Found:
        visible, timeout = int(self._attribute("VisibilityTimeout")), self._timeout()
        return visible >= VISIBILITY * timeout, f"{visible} s, the processor's timeout is {timeout} s"

    def _source(self) -> str:
        try:
            return self._deployed.resource(SOURCE) or "UUID"
        except StoreError:
            return "UUID"

    def _mapping(self) -> EventSourceMappingConfigurationResponseTypeDef:
        source = self._deployed.resource(SOURCE)
        if not source:
            raise StoreError(f"the stack has no {SOURCE}")
        with translated("lambda"):
            return self._deployed.clients.client("lambda").get_event_source_mapping(UUID=source)

    def _reports(self) -> Found:
        types = self._mapping().get("FunctionResponseTypes", [])
        return "ReportBatchItemFailures" in types, ", ".join(types) or "none: one failure repeats its whole batch"

    def _switch(self) -> Found:
        state = self._mapping()["State"]
        wanted = "Disabled" if self._deployed.parameters.get("EnableProcessor") == "false" else "Enabled"
        return state == wanted, state


class _Alarms:
    def __init__(self, deployed: DeployedStack) -> None:
        self._deployed = deployed

    def settings(self) -> Iterator[Look]:
        deploy = f"sam deploy --stack-name {self._deployed.stack.name}: the alarm is in template.yaml"
        for logical in ALARMS:
            yield f"alarm {logical}", "there", deploy, partial(self._alarm, logical)

    def _alarm(self, logical: str) -> Found:
        name = self._deployed.resource(logical)
        if not name:
            return False, "the stack has none"
        with translated("cloudwatch"):
            found = self._deployed.clients.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
        return bool(found), "there" if found else f"{name} was deleted"


def described(deployed: DeployedStack, table: str) -> TableDescriptionTypeDef:
    """A table as DynamoDB describes it. Raises StoreError."""
    with translated("dynamodb"):
        return deployed.clients.client("dynamodb").describe_table(TableName=table)["Table"]


def recovers(deployed: DeployedStack, table: str) -> bool:
    """Whether the table can be restored to a point in time. Raises StoreError."""
    with translated("dynamodb"):
        found = deployed.clients.client("dynamodb").describe_continuous_backups(TableName=table)
    state = found["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    return bool(state.get("PointInTimeRecoveryStatus") == "ENABLED")


def _denied(yes: bool) -> Found:
    return yes, "denied" if yes else "no statement denies it"


def _on(yes: bool) -> Found:
    return yes, "on" if yes else "off"


def _locks(rule: Mapping[str, Any]) -> str:
    return f"{rule['Mode']} for {rule.get('Days')} days" if rule else "locking nothing by itself"


def _list(value: Any) -> list[Any]:
    """A policy writes a list of one without its brackets."""
    return value if isinstance(value, list) else [value]
