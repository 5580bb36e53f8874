"""Checks of the settings of a deployed stack: are they still as template.yaml sets them?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pik.errors import StoreError
from pik.ports.remote import Setting
from pik.stores.aws.clients import Refused, briefly, translated
from pik.stores.aws.deployed_stack import ALARMS, FUNCTIONS, PLANNER, SOURCE, DeployedStack
from pik.stores.aws.package import built_for
from pik.stores.aws.stack import parameter_change

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType


VISIBILITY_FACTOR = 6
"""The queue's visibility timeout is at least so many times the processor's timeout, as Lambda requires."""

_PUBLIC = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")

_SETTINGS = (
    *("s3:DeleteBucketPolicy", "s3:PutBucketObjectLockConfiguration"),
    *("s3:PutBucketVersioning", "s3:PutLifecycleConfiguration"),
)
"""What could make raw expire or vulnerable: only a deployment, or the break-glass role, may do it."""


_Finding = tuple[bool, str]
"""Whether a setting is right, and how it was found."""


class _Check(NamedTuple):
    """A setting that the kit relies on: what is expected, the command that makes it so, and what reads it."""

    name: str
    expected: str
    fix: str
    read: Callable[[], _Finding]


def settings(deployed: DeployedStack) -> Iterator[Setting]:
    """Yield every setting as it was found, in the order of the resources."""
    for check in _checks(deployed):
        right: bool | None
        try:
            right, found = check.read()
        except StoreError as error:
            right, found = None, briefly(error)
        yield Setting(check.name, right, found, check.expected, check.fix)


def _checks(deployed: DeployedStack) -> Iterator[_Check]:
    yield from _Bucket(deployed).checks()
    for table in (deployed.stack.index_table, deployed.stack.state_table):
        recover = f"aws dynamodb update-continuous-backups --table-name {table} --point-in-time-recovery-specification"
        recover += " PointInTimeRecoveryEnabled=true"
        protect = f"aws dynamodb update-table --table-name {table} --deletion-protection-enabled"
        recovers, is_protected = partial(_on, deployed.recovers, table), partial(_on, deployed.is_protected, table)
        yield _Check(f"point-in-time recovery of {table}", "on", recover, recovers)
        yield _Check(f"deletion protection of {table}", "on", protect, is_protected)
    yield from _Queue(deployed).checks()
    yield from map(partial(_package, deployed), FUNCTIONS)
    yield _planning(deployed)
    yield _api_logs(deployed)
    deploy = f"sam deploy --stack-name {deployed.stack.name}: the alarm is in template.yaml"
    for each in ALARMS:
        yield _Check(f"alarm {each}", "there", deploy, partial(_alarm, deployed, each))


class _Bucket:
    def __init__(self, deployed: DeployedStack) -> None:
        self._s3, self._bucket = deployed.clients.client("s3"), deployed.stack.raw_bucket
        self._arn = f"arn:{deployed.partition}:s3:::{self._bucket}"
        self._key = deployed.parameters.get("KmsKeyArn", "")
        self._break_glass_role = deployed.parameters.get("BreakGlassRoleArn", "")
        mode = deployed.parameters.get("ObjectLockMode", "NONE")
        self._lock_rule = {} if mode == "NONE" else {"Mode": mode, "Days": int(deployed.parameters["ObjectLockDays"])}

    def checks(self) -> list[_Check]:
        def put(what: str, option: str, value: str) -> str:
            return f"aws s3api put-{what} --bucket {self._bucket} --{option} {value}"

        def deny(sid: str) -> str:
            return put("bucket-policy", "policy", f"file://policy.json, with {sid} of template.yaml's RawBucketPolicy")

        rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": self._key} if self._key else {"SSEAlgorithm": "AES256"}
        rules = json.dumps({"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]})
        retention = {"Rule": {"DefaultRetention": self._lock_rule}} if self._lock_rule else {}
        rule_of_lock = json.dumps({"ObjectLockEnabled": "Enabled", **retention})
        version = put("bucket-versioning", "versioning-configuration", "Status=Enabled")
        encrypt = put("bucket-encryption", "server-side-encryption-configuration", f"'{rules}'")
        public = "public-access-block"
        block = put(public, f"{public}-configuration", ",".join(f"{name}=true" for name in _PUBLIC))
        lock = put("object-lock-configuration", "object-lock-configuration", f"'{rule_of_lock}'")
        denied = "a statement that denies it"
        return [
            _Check("versioning of the bucket", "Enabled", version, self._versioning),
            _Check("encryption of the bucket", self._key or "AES256 or aws:kms", encrypt, self._encryption),
            _Check("public access to the bucket", "blocked in all four ways", block, self._public_access),
            _Check("bucket policy: TLS only", denied, deny("DenyPlainHttp"), self._plain_http),
            _Check("bucket policy: overwriting of raw", denied, deny("DenyOverwritingRaw"), self._overwriting),
            _Check("bucket policy: deleting of raw", denied, deny("DenyDeletingRaw"), self._deleting),
            _Check("bucket policy: changing of settings", denied, deny("DenyChangingSettings"), self._changing),
            _Check("Object Lock of the bucket", f"enabled, {_retention(self._lock_rule)}", lock, self._object_lock),
        ]

    def _versioning(self) -> _Finding:
        with translated("s3"):
            state = self._s3.get_bucket_versioning(Bucket=self._bucket).get("Status", "never enabled")
        return state == "Enabled", state

    def _encryption(self) -> _Finding:
        with translated("s3"):
            answer = self._s3.get_bucket_encryption(Bucket=self._bucket)
        rule = answer["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
        found = rule.get("KMSMasterKeyID") or rule["SSEAlgorithm"]
        return found == self._key if self._key else True, found

    def _public_access(self) -> _Finding:
        blocked: Mapping[str, Any] = {}
        with _unless_absent("NoSuchPublicAccessBlockConfiguration"):
            blocked = self._s3.get_public_access_block(Bucket=self._bucket)["PublicAccessBlockConfiguration"]
        off = [name for name in _PUBLIC if not blocked.get(name)]
        return not off, f"not set: {', '.join(off)}" if off else "blocked in all four ways"

    def _plain_http(self) -> _Finding:
        return self._denied(
            lambda statement: (
                self._conditions(statement) == {("Bool", "aws:SecureTransport", "false")}
                and "s3:*" in _as_list(statement["Action"])
                and {self._arn, f"{self._arn}/*"} <= set(_as_list(statement["Resource"]))
            )
        )

    def _overwriting(self) -> _Finding:
        bare = ("Null", "s3:if-none-match", "true")
        created = ("Bool", "s3:ObjectCreationOperation", "true")  # a part of a multipart upload has no If-None-Match
        return self._denied(
            lambda statement: (
                self._conditions(statement) in ({bare}, {bare, created}) and self._covers(statement, "s3:PutObject")
            )
        )

    def _deleting(self) -> _Finding:
        actions = ("s3:DeleteObject", "s3:DeleteObjectVersion")
        return self._denied(
            lambda statement: not self._conditions(statement) and all(self._covers(statement, each) for each in actions)
        )

    def _changing(self) -> _Finding:
        deployed = ("ForAllValues:StringNotEquals", "aws:CalledVia", "cloudformation.amazonaws.com")
        return self._denied(
            lambda statement: (
                self._conditions(statement) in (set(), {deployed})
                and set(_SETTINGS) <= set(_as_list(statement["Action"]))
                and self._arn in _as_list(statement["Resource"])
            )
        )

    def _denied(self, denies: Callable[[Mapping[str, Any]], bool]) -> _Finding:
        """Look for a statement of the bucket's policy that denies something to everybody."""
        policy: Mapping[str, Any] = {"Statement": []}
        with _unless_absent("NoSuchBucketPolicy"):
            policy = json.loads(self._s3.get_bucket_policy(Bucket=self._bucket)["Policy"])
        found = any(
            each["Effect"] == "Deny" and each.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]}) and denies(each)
            for each in _as_list(policy["Statement"])
        )
        return found, "denied" if found else "no statement denies it"

    def _conditions(self, statement: Mapping[str, Any]) -> set[tuple[str, str, str]]:
        """Return operator, key and value of each condition, except the exemption of the break-glass role."""
        found = {
            (operator, key, str(value))
            for operator, tests in statement.get("Condition", {}).items()
            for key, values in tests.items()
            for value in _as_list(values)
        }
        return found - {("ArnNotEquals", "aws:PrincipalArn", self._break_glass_role)}

    def _covers(self, statement: Mapping[str, Any], action: str) -> bool:
        resources = {f"{self._arn}/raw/*", f"{self._arn}/*"} & set(_as_list(statement["Resource"]))
        return bool(resources) and bool({action, "s3:*"} & set(_as_list(statement["Action"])))

    def _object_lock(self) -> _Finding:
        lock: Mapping[str, Any] = {}
        with _unless_absent("ObjectLockConfigurationNotFoundError"):
            lock = self._s3.get_object_lock_configuration(Bucket=self._bucket)["ObjectLockConfiguration"]
        if lock.get("ObjectLockEnabled") != "Enabled":
            return False, "not enabled"
        rule = lock.get("Rule", {}).get("DefaultRetention", {})
        return rule == self._lock_rule, f"enabled, {_retention(rule)}"


class _Queue:
    def __init__(self, deployed: DeployedStack) -> None:
        self._deployed, self._url = deployed, deployed.stack.queue_url
        self._dead_arn = f"arn:{deployed.partition}:sqs:{deployed.region}:{deployed.account}:{deployed.dead_letters}"
        self._receives = deployed.parameters.get("MaxReceives", "6")
        self._switch = "Disabled" if deployed.parameters.get("EnableProcessor") == "false" else "Enabled"

    def checks(self) -> list[_Check]:
        try:
            source, seconds = self._deployed.resource(SOURCE) or "UUID", str(VISIBILITY_FACTOR * self._timeout)
        except StoreError:
            source, seconds = "UUID", "SECONDS"
        policy = json.dumps({"deadLetterTargetArn": self._dead_arn, "maxReceiveCount": self._receives})
        redrive = f"to {self._deployed.dead_letters} after {self._receives} attempts"
        visible = f"{VISIBILITY_FACTOR} × the processor's timeout, or more"
        switch = f"{self._switch}, as EnableProcessor says"
        set_ = f"aws sqs set-queue-attributes --queue-url {self._url} --attributes"
        set_redrive = f"{set_} '{json.dumps({'RedrivePolicy': policy})}'"
        set_visible = f"{set_} VisibilityTimeout={seconds}"
        update = f"aws lambda update-event-source-mapping --uuid {source}"
        report = f"{update} --function-response-types ReportBatchItemFailures"
        turn = f"{update} {'--enabled' if self._switch == 'Enabled' else '--no-enabled'}"
        return [
            _Check("redrive of the replay queue", redrive, set_redrive, self._redrive),
            _Check("visibility timeout of the replay queue", visible, set_visible, self._visibility),
            _Check("answers of the processor", "ReportBatchItemFailures", report, self._reports),
            _Check("the processor's switch", switch, turn, self._enabled),
        ]

    def _attribute(self, name: QueueAttributeNameType) -> str:
        with translated("sqs"):
            answer = self._deployed.clients.client("sqs").get_queue_attributes(
                QueueUrl=self._url, AttributeNames=[name]
            )
        return answer.get("Attributes", {}).get(name, "")

    def _redrive(self) -> _Finding:
        text = self._attribute("RedrivePolicy")
        if not text:
            return False, "none: a task that fails is tried for 4 days"
        policy = json.loads(text)
        target, receives = policy["deadLetterTargetArn"], str(policy["maxReceiveCount"])
        right = target == self._dead_arn and receives == self._receives
        return right, f"to {target.rpartition(':')[2]} after {receives} attempts"

    @property
    def _timeout(self) -> int:
        return self._deployed.configuration(FUNCTIONS[-1])["Timeout"]

    def _visibility(self) -> _Finding:
        visible, timeout = int(self._attribute("VisibilityTimeout")), self._timeout
        return visible >= VISIBILITY_FACTOR * timeout, f"{visible} s, the processor's timeout is {timeout} s"

    def _reports(self) -> _Finding:
        types = self._deployed.event_source().get("FunctionResponseTypes", [])
        found = ", ".join(types) or "none: one failure repeats its whole batch"
        return "ReportBatchItemFailures" in types, found

    def _enabled(self) -> _Finding:
        state = self._deployed.event_source()["State"]
        return state == self._switch, state


def _package(deployed: DeployedStack, function: str) -> _Check:
    """Return the check of whether a function's package was built for the architecture that it runs on."""
    wanted = deployed.parameters.get("Architecture", "arm64")
    fix = f"sam build --parameter-overrides Architecture={wanted} && sam deploy --stack-name {deployed.stack.name}"

    def read() -> _Finding:
        with translated("lambda"):
            client = deployed.clients.client("lambda")
            found = client.get_function(FunctionName=deployed.outputs.get(function, function))
        architecture = built_for(found["Code"]["Location"])
        return [architecture] == found["Configuration"]["Architectures"], f"built for {architecture}"

    return _Check(f"package of {function}", f"built for {wanted}", fix, read)


def _planning(deployed: DeployedStack) -> _Check:
    """Return the check of where Lambda puts its record of a replay that it gives up planning."""
    function = deployed.outputs.get(PLANNER, PLANNER)
    queue = f"arn:{deployed.partition}:sqs:{deployed.region}:{deployed.account}:{deployed.queue}"
    destination = json.dumps({"OnFailure": {"Destination": queue}})
    fix = f"aws lambda put-function-event-invoke-config --function-name {function} --qualifier '$LATEST'"
    fix += " --maximum-retry-attempts 2 --maximum-event-age-in-seconds 3600"  # it resets what it does not name

    def read() -> _Finding:
        with translated("lambda"):
            answer = deployed.clients.client("lambda").list_function_event_invoke_configs(FunctionName=function)
        found = {
            each.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
            for each in answer["FunctionEventInvokeConfigs"]
            if each["FunctionArn"].endswith(":$LATEST")
        } - {""}
        right = found == {queue}
        return right, ", ".join(f"to {each.rpartition(':')[2]}" for each in sorted(found)) or "they are dropped"

    name, expected = "replays that could not be planned", f"to {deployed.queue}"
    return _Check(name, expected, f"{fix} --destination-config '{destination}'", read)


def _api_logs(deployed: DeployedStack) -> _Check:
    """Return the check of whether API Gateway can write the logs that the stack's parameters ask for."""
    asked = [name for name in ("LogApiRequests", "CreateApiLogRole") if deployed.parameters.get(name) == "true"]
    fix = parameter_change(deployed.stack.name, "CreateApiLogRole", "true")

    def read() -> _Finding:
        if not asked:
            return True, "none: LogApiRequests is false"
        with translated("apigateway"):
            role = deployed.clients.client("apigateway").get_account().get("cloudwatchRoleArn", "")
        return bool(
            role
        ), f"with {role}" if role else "none: API Gateway has no role for logs in this account and region"

    return _Check("logs of the API", f"as {asked[0]} says" if asked else "none", fix, read)


def _alarm(deployed: DeployedStack, logical: str) -> _Finding:
    name = deployed.resource(logical)
    if not name:
        return False, "the stack has none"
    with translated("cloudwatch"):
        found = deployed.clients.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return bool(found), "there" if found else f"{name} was deleted"


def _on(is_on: Callable[[str], bool], table: str) -> _Finding:
    right = is_on(table)
    return right, "on" if right else "off"


@contextmanager
def _unless_absent(code: str) -> Iterator[None]:
    """Ignore S3's error for a configuration that is not there."""
    try:
        with translated("s3"):
            yield
    except Refused as error:
        if error.code != code:
            raise


def _retention(rule: Mapping[str, Any]) -> str:
    return f"{rule['Mode']} for {rule.get('Days')} days" if rule else "without a default retention"


def _as_list(value: Any) -> list[Any]:
    """Return a policy's value as a list: a list of one may stand without its brackets."""
    return value if isinstance(value, list) else [value]
