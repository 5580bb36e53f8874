"""What template.yaml promises about security, durability and operation. The emulator exercises none of it: it ignores
bucket policies, locks, lifecycles and roles, so it is asserted here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import pik
from pik.model.run import TASK_TIMEOUT
from pik.ports.state import PARTIALS_KEPT
from pik.stores.aws.settings import VISIBILITY_FACTOR
from pik.stores.aws.stack import Stack, output_name
from tests.support.aws.policy import as_list, denies
from tests.support.aws.template import PATH, properties, resolved, resources, template

ROOT = PATH.parent
KEY = "arn:aws:kms:eu-central-1:123456789012:key/0-1"
BREAK_GLASS = "arn:aws:iam::123456789012:role/break-glass"
SOMEBODY = "arn:aws:iam::123456789012:role/admin"
FUNCTIONS = {"IngestFunction", "RecorderFunction", "ReplayFunction", "ProcessorFunction"}

HTTPS = {"aws:SecureTransport": "true", "aws:PrincipalArn": SOMEBODY}
CREATING = {**HTTPS, "s3:ObjectCreationOperation": "true"}
SETTINGS = [
    *("DeleteBucketPolicy", "PutBucketObjectLockConfiguration", "PutBucketVersioning", "PutLifecycleConfiguration")
]
DEPLOYING = "cloudformation.amazonaws.com"
RAW = "RawBucket.Arn/raw/event_date=2026-03-02/01M847641WZVD6D20QFK1QP8GZ-0.ndjson.zst"


def _bucket_policy(**parameters: str) -> Any:
    return properties("RawBucketPolicy", **parameters)["PolicyDocument"]


# Raw


@pytest.mark.parametrize(
    ("action", "resource", "context", "sid"),
    [
        ("s3:PutObject", RAW, CREATING, "DenyOverwritingRaw"),
        ("s3:PutObject", RAW, {**CREATING, "s3:if-match": "etag"}, "DenyOverwritingRaw"),
        ("s3:PutObject", RAW, {**CREATING, "s3:if-none-match": "*"}, None),
        # a part of a multipart upload; its CompleteMultipartUpload creates the object
        ("s3:PutObject", RAW, {**HTTPS, "s3:ObjectCreationOperation": "false"}, None),
        ("s3:PutObject", "RawBucket.Arn/index/1/a.ids", CREATING, None),
        ("s3:DeleteObject", RAW, HTTPS, "DenyDeletingRaw"),
        ("s3:DeleteObjectVersion", RAW, HTTPS, "DenyDeletingRaw"),
        ("s3:BypassGovernanceRetention", RAW, HTTPS, "DenyDeletingRaw"),
        ("s3:DeleteObject", "RawBucket.Arn/index/1/a.ids", HTTPS, None),
        *((f"s3:{action}", "RawBucket.Arn", HTTPS, "DenyChangingSettings") for action in SETTINGS),
        *((f"s3:{action}", "RawBucket.Arn", {**HTTPS, "aws:CalledVia": DEPLOYING}, None) for action in SETTINGS),
        ("s3:PutBucketPolicy", "RawBucket.Arn", HTTPS, None),
        ("s3:PutObjectRetention", RAW, HTTPS, "DenyLockingRaw"),
        ("s3:PutObjectLegalHold", RAW, HTTPS, "DenyLockingRaw"),
        ("s3:GetObject", RAW, HTTPS, None),
        ("s3:GetObject", RAW, {**HTTPS, "aws:SecureTransport": "false"}, "DenyPlainHttp"),
        ("s3:ListBucket", "RawBucket.Arn", {**HTTPS, "aws:SecureTransport": "false"}, "DenyPlainHttp"),
    ],
)
@pytest.mark.parametrize("parameters", [{}, {"BreakGlassRoleArn": BREAK_GLASS}], ids=["nobody", "break-glass"])
def test_raw_is_created_once_and_never_deleted(action, resource, context, sid, parameters) -> None:
    assert denies(_bucket_policy(**parameters), action, resource, context) == sid


@pytest.mark.parametrize("action", ["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"])
def test_only_the_named_role_may_break_the_glass(action) -> None:
    context = {**CREATING, "aws:PrincipalArn": BREAK_GLASS}
    assert denies(_bucket_policy(BreakGlassRoleArn=BREAK_GLASS), action, RAW, context) is None
    assert denies(_bucket_policy(), action, RAW, context) is not None


def test_the_named_role_may_change_the_settings_too() -> None:
    for action in SETTINGS:
        context = {**HTTPS, "aws:PrincipalArn": BREAK_GLASS}
        assert denies(_bucket_policy(BreakGlassRoleArn=BREAK_GLASS), f"s3:{action}", "RawBucket.Arn", context) is None


def test_raw_is_kept_for_good_unless_a_retention_is_chosen() -> None:
    def expiring(**parameters: str) -> list[Any]:
        rules = properties("RawBucket", **parameters)["LifecycleConfiguration"]["Rules"]
        return [
            rule
            for rule in rules
            if any("Expiration" in key for key in rule) and rule["Prefix"] not in ("index/", "backups/")
            if rule["Id"] != "old-copies"
        ]

    (rule,) = expiring()
    assert (rule["Prefix"], rule["ExpirationInDays"]) == ("partials/", PARTIALS_KEPT)
    _, rule, copies = expiring(RawRetentionDays="90")
    assert (copies["Prefix"], copies["ExpirationInDays"]) == ("compact/", "90")
    assert (rule["Prefix"], rule["ExpirationInDays"]) == ("raw/", "90")
    # The bucket is versioned, so expiring hides an object; that removes what is hidden, a day later.
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}


@pytest.mark.parametrize(("days", "expires"), [("0", None), ("90", 90)])
def test_commands_and_functions_know_when_raw_expires(days, expires) -> None:
    output = resolved(template()["Outputs"]["RawRetentionDays"]["Value"], {"RawRetentionDays": days})
    assert _stack(output).retention_days == expires
    for function in FUNCTIONS:
        told = _environment(function, RawRetentionDays=days)["PIK_RAW_RETENTION_DAYS"]
        assert _stack(told).retention_days == expires


def _stack(days: str) -> Stack:
    return Stack("s", "b", "i", "t", "q", "d", raw_retention_days=days)


def test_objects_are_locked_only_if_a_mode_is_chosen() -> None:
    assert properties("RawBucket")["ObjectLockEnabled"] is True
    assert "Rule" not in properties("RawBucket")["ObjectLockConfiguration"]
    locked = properties("RawBucket", ObjectLockMode="COMPLIANCE", ObjectLockDays="7")["ObjectLockConfiguration"]
    assert locked["Rule"] == {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": "7"}}


def test_the_bucket_is_versioned_and_closed_to_the_public() -> None:
    bucket = properties("RawBucket")
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4


# Durability and encryption


def test_what_holds_data_outlives_the_stack() -> None:
    for name in ("RawBucket", "IndexTable", "StateTable"):
        resource = template()["Resources"][name]
        kept = resource["DeletionPolicy"], resource["UpdateReplacePolicy"]
        assert kept == ("RetainExceptOnCreate", "Retain"), name


@pytest.mark.parametrize("name", ["IndexTable", "StateTable"])
def test_tables_are_on_demand_and_recoverable_and_go_with_a_first_deployment_that_fails(name) -> None:
    table = properties(name)
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert "DeletionProtectionEnabled" not in table  # a second step: a rollback could not delete the table
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}


def test_everything_is_encrypted_with_the_key_that_is_given() -> None:
    (rule,) = properties("RawBucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    (rule,) = properties("RawBucket", KmsKeyArn=KEY)["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    for queue in resources("AWS::SQS::Queue"):
        assert properties(queue)["SqsManagedSseEnabled"] is True
        assert properties(queue, KmsKeyArn=KEY)["KmsMasterKeyId"] == KEY
    for table in resources("AWS::DynamoDB::Table"):
        assert "SSESpecification" not in properties(table), "encrypted with a key that AWS owns"
        assert properties(table, KmsKeyArn=KEY)["SSESpecification"]["KMSMasterKeyId"] == KEY


# Queues


def test_a_task_stays_hidden_for_six_timeouts_of_the_processor() -> None:
    assert properties("ProcessorFunction")["Timeout"] == TASK_TIMEOUT
    for seconds in template()["Parameters"]["ProcessorTimeout"]["AllowedValues"]:
        assert properties("ProcessorFunction", ProcessorTimeout=seconds)["Timeout"] == seconds
        hidden = properties("ReplayQueue", ProcessorTimeout=seconds)["VisibilityTimeout"]
        assert hidden == VISIBILITY_FACTOR * seconds


def test_a_task_that_keeps_failing_becomes_a_dead_letter() -> None:
    queue = properties("ReplayQueue", MaxReceives="7")
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": "DeadLetterQueue.Arn", "maxReceiveCount": "7"}
    assert _environment("ProcessorFunction", MaxReceives="7")["PIK_MAX_RECEIVES"] == "7"
    assert queue["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}
    allowed = properties("DeadLetterQueue")["RedriveAllowPolicy"]
    assert allowed["redrivePermission"] == "byQueue"
    (source,) = allowed["sourceQueueArns"]
    assert source.endswith(f":{queue['QueueName']}")
    assert properties("DeadLetterQueue")["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]


def test_a_buffered_request_is_kept_as_long_as_can_be() -> None:
    """It was acknowledged: it outlives an outage of a day, the stack, and a bug of the recorder."""
    for queue in ("IngestQueue", "IngestDeadLetterQueue"):
        assert properties(queue)["MessageRetentionPeriod"] == 14 * 24 * 3600
        kept = template()["Resources"][queue]
        assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    queue, function = properties("IngestQueue"), properties("RecorderFunction")
    assert queue["VisibilityTimeout"] == VISIBILITY_FACTOR * function["Timeout"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == "IngestDeadLetterQueue.Arn"
    assert queue["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}
    source = properties("RecorderSource", RecorderConcurrency="7")
    assert source["EventSourceArn"] == "IngestQueue.Arn"
    assert source["ScalingConfig"] == {"MaximumConcurrency": "7"}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_queues_take_no_plain_http() -> None:
    document = properties("QueuePolicy")["PolicyDocument"]
    for queue in resources("AWS::SQS::Queue"):
        assert queue in properties("QueuePolicy")["Queues"]
        assert denies(document, "sqs:SendMessage", f"{queue}.Arn", {"aws:SecureTransport": "false"}) == "DenyPlainHttp"
        assert denies(document, "sqs:SendMessage", f"{queue}.Arn", {"aws:SecureTransport": "true"}) is None


def test_the_kill_switch_stops_the_processor_and_nothing_else() -> None:
    assert properties("ProcessorSource")["Enabled"] is True
    assert properties("ProcessorSource", EnableProcessor="false")["Enabled"] is False
    uses = [name for name, one in template()["Resources"].items() if "EnablesProcessor" in json.dumps(one)]
    assert uses == ["ProcessorSource"]


def test_the_processor_is_limited_and_reports_each_failure() -> None:
    source = properties("ProcessorSource", ProcessorBatchSize="3", ProcessorConcurrency="4")
    assert source["BatchSize"] == "3"
    assert source["ScalingConfig"] == {"MaximumConcurrency": "4"}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_concurrency_is_reserved_and_scratch_space_is_enlarged_only_if_chosen() -> None:
    for function, parameter in (("IngestFunction", "IngestConcurrency"), ("ReplayFunction", "ReplayConcurrency")):
        assert "ReservedConcurrentExecutions" not in properties(function)
        assert properties(function, **{parameter: "7"})["ReservedConcurrentExecutions"] == "7"
    assert properties("ProcessorFunction")["EphemeralStorage"] == {"Size": 512}
    assert properties("ProcessorFunction", ProcessorStorage="4096")["EphemeralStorage"] == {"Size": "4096"}


# The API

ROUTES = {("/ingest", "post"), ("/replay", "post"), ("/replay/{run_id}", "get")}


def _operations(**parameters: str) -> dict[tuple[str, str], Any]:
    paths = properties("Api", **parameters)["DefinitionBody"]["paths"]
    return {(path, method): one for path, methods in paths.items() for method, one in methods.items()}


@pytest.mark.parametrize(
    ("parameters", "scheme"),
    [
        ({}, {"type": "apiKey", "name": "Authorization", "in": "header", "x-amazon-apigateway-authtype": "awsSigv4"}),
        ({"ApiAuthorization": "API_KEY"}, {"type": "apiKey", "name": "x-api-key", "in": "header"}),
    ],
)
def test_no_route_is_open(parameters, scheme) -> None:
    schemes = properties("Api")["DefinitionBody"]["components"]["securitySchemes"]
    operations = _operations(**parameters)
    assert set(operations) == ROUTES
    for operation in operations.values():
        ((name, scopes),) = [item for one in operation["security"] for item in one.items()]
        assert (schemes[name], scopes) == (scheme, [])


def test_only_the_api_reaches_the_functions_and_only_by_its_routes() -> None:
    invoked = set()
    for name in resources("AWS::Lambda::Permission").keys() - {"ScheduleMayBackUp", "ScheduleMayCompact"}:
        permission = properties(name)
        assert permission["Principal"] == "apigateway.amazonaws.com"
        invoked.add((permission["FunctionName"], permission["SourceArn"].rpartition(":Api/v1/")[2]))
    assert invoked == {
        ("IngestFunction", "POST/ingest"),
        ("ReplayFunction", "POST/replay"),
        ("ReplayFunction", "GET/replay/*"),
    }
    assert not resources("AWS::Lambda::Url")
    for name in FUNCTIONS:
        assert not {"Events", "FunctionUrlConfig"} & set(properties(name))


def test_a_planning_that_lambda_gives_up_leaves_a_record_where_a_function_finds_it() -> None:
    config = properties("ReplayFunction")["EventInvokeConfig"]
    assert config["DestinationConfig"]["OnFailure"] == {"Type": "SQS", "Destination": "ReplayQueue.Arn"}
    assert config["MaximumEventAgeInSeconds"] <= 3600
    ours = [one for role, one in _statements() if role == "ReplayRole"]
    (send,) = [one for one in ours if one["Action"] == "sqs:SendMessage"]
    assert send["Resource"] == "ReplayQueue.Arn", "Lambda sends with the function's own role"
    assert ("ProcessorRole", send) in list(_statements()), "it may have to send the tasks"
    assert properties("ProcessorSource")["EventSourceArn"] == "ReplayQueue.Arn"


def test_requests_are_validated_throttled_and_logged_without_payloads() -> None:
    api = properties("Api", ThrottleRate="5", ThrottleBurst="6", LogApiRequests="true")
    definition = api["DefinitionBody"]
    validators = definition["x-amazon-apigateway-request-validators"]
    assert validators[definition["x-amazon-apigateway-request-validator"]] == {
        "validateRequestBody": True,
        "validateRequestParameters": True,
    }
    for (_path, method), operation in _operations().items():
        assert method == "get" or operation["requestBody"]["required"] is True
    (settings,) = api["MethodSettings"]
    assert (settings["ResourcePath"], settings["HttpMethod"]) == ("/*", "*")
    assert (settings["ThrottlingRateLimit"], settings["ThrottlingBurstLimit"]) == ("5", "6")
    assert settings["DataTraceEnabled"] is False
    line = json.loads(api["AccessLogSetting"]["Format"])
    assert line["requestId"] == "$context.requestId"
    for response in definition["x-amazon-apigateway-gateway-responses"].values():
        assert '"request_id":"$context.requestId"' in response["responseTemplates"]["application/json"]
    assert not [value for value in line.values() if "body" in value.lower()]


def test_the_account_has_a_role_for_logs_before_the_stage_is_made() -> None:
    assert template()["Resources"]["Api"]["DependsOn"] == "ApiLogAccount"


@pytest.mark.parametrize(
    ("parameters", "logs", "sets_role"),
    [({}, False, False), ({"LogApiRequests": "true"}, True, False), ({"CreateApiLogRole": "true"}, True, True)],
)
def test_the_accounts_role_for_logs_is_neither_needed_nor_replaced_unless_chosen(parameters, logs, sets_role) -> None:
    api = properties("Api", **parameters)
    assert ("AccessLogSetting" in api, api["MethodSettings"][0]["LoggingLevel"] == "ERROR") == (logs, logs)
    assert resolved(template()["Conditions"]["CreatesApiLogRole"], parameters) is sets_role
    for name in ("ApiLogRole", "ApiLogAccount"):
        assert template()["Resources"][name]["Condition"] == "CreatesApiLogRole"


def test_a_web_acl_guards_the_stage_only_if_one_is_given() -> None:
    (name,) = resources("AWS::WAFv2::WebACLAssociation")
    assert template()["Resources"][name]["Condition"] == "HasWebAcl"
    assert resolved(template()["Conditions"]["HasWebAcl"], {}) is False
    assert properties(name)["ResourceArn"].endswith("::/restapis/Api/stages/Api.Stage")


# Roles

TRACING = {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}


def _statements(**parameters: str) -> Iterator[tuple[str, Any]]:
    for name in resources("AWS::IAM::Role"):
        for policy in properties(name, **parameters).get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement
    for name in resources("AWS::IAM::Policy"):
        for statement in properties(name, **parameters)["PolicyDocument"]["Statement"]:
            yield name, statement


def test_no_role_has_a_wildcard_but_for_tracing() -> None:
    seen = list(_statements(KmsKeyArn=KEY, CompactSchedule="rate(1 hour)"))
    assert seen
    for role, statement in seen:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"}, (role, statement)
        actions, where = set(as_list(statement["Action"])), as_list(statement["Resource"])
        assert not [action for action in actions if "*" in action], (role, statement["Sid"])
        if where == ["*"]:
            assert actions == TRACING, (role, statement["Sid"])
        else:
            wild = {one for one in where if "*" in one}
            prefixes = {f"RawBucket.Arn/{name}/*" for name in ("raw", "index", "corrections", "compact", "partials")}
            assert wild <= prefixes, (role, statement["Sid"])


def test_roles_have_no_policies_from_elsewhere() -> None:
    managed = {name: one["Properties"].get("ManagedPolicyArns") for name, one in resources("AWS::IAM::Role").items()}
    assert {name for name, arns in managed.items() if arns} == {"ApiLogRole"}
    assert {
        one for name in FUNCTIONS for one in properties(name) if one in ("Policies", "PermissionsBoundary")
    } == set()


def test_each_function_has_its_own_role_and_no_more_than_it_needs() -> None:
    roles = {f"{name.removesuffix('Function')}Role.Arn" for name in FUNCTIONS}
    assert {properties(name)["Role"] for name in FUNCTIONS} == roles
    actions: dict[str, set[str]] = {}
    for role, statement in _statements():
        actions.setdefault(role, set()).update(as_list(statement["Action"]))
    for role, allowed in actions.items():
        assert not [one for one in allowed if one.startswith(("s3:Delete", "iam:", "kms:"))], role
    creates = {
        (role, one) for role, s in _statements() if "s3:PutObject" in s["Action"] for one in as_list(s["Resource"])
    }
    assert {one for one in creates if one[0] not in ("IngestRole", "RecorderRole")} == {
        ("ProcessorRole", "RawBucket.Arn/partials/*")
    }
    assert not [one for one in actions["IngestRole"] | actions["RecorderRole"] if one.startswith("lambda:")]
    sends = {(role, s["Resource"]) for role, s in _statements() if "sqs:SendMessage" in as_list(s["Action"])}
    of_processor = {("ProcessorRole", "ReplayQueue.Arn"), ("ProcessorRole", "DeadLetterQueue.Arn")}
    assert sends == {("IngestRole", "IngestQueue.Arn"), ("ReplayRole", "ReplayQueue.Arn"), *of_processor}


def test_ingest_reaches_no_state_and_replay_writes_no_index() -> None:
    writes = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"}
    for role, statement in _statements():
        where = as_list(statement["Resource"])
        if role in ("IngestRole", "RecorderRole"):
            assert not [one for one in where if one.startswith("StateTable")], statement["Sid"]
        elif "IndexTable.Arn" in where:
            assert not writes & set(as_list(statement["Action"])), (role, statement["Sid"])


# Functions, outputs, operation


def _environment(function: str, **parameters: str) -> dict[str, str]:
    shared = resolved(template()["Globals"]["Function"]["Environment"]["Variables"], parameters)
    return {**shared, **properties(function, **parameters)["Environment"]["Variables"]}


def test_functions_are_configured_with_what_they_work_with() -> None:
    optional = {"name", "api_url", "version", "raw_retention_days"}
    variables = {f"PIK_{field.name.upper()}" for field in fields(Stack) if field.name not in optional}
    for function in FUNCTIONS:
        environment = _environment(function, DryRun="true")
        assert set(environment) == variables | {
            "PIK_STACK",
            "PIK_RAW_RETENTION_DAYS",
            "PIK_MAX_RECEIVES",
            "DRY_RUN",
            *(["PIK_TIMEZONE", "PIK_INGEST_MODE"] if function == "IngestFunction" else []),
            *(["PIK_INGEST_QUEUE_URL"] if function in ("IngestFunction", "RecorderFunction") else []),
            "POWERTOOLS_SERVICE_NAME",
            "POWERTOOLS_METRICS_NAMESPACE",
        }
        assert environment["DRY_RUN"] == "true"


def test_outputs_are_what_a_store_looks_for() -> None:
    assert {output_name(field.name) for field in fields(Stack) if field.name != "name"} <= set(template()["Outputs"])
    assert template()["Outputs"]["Version"]["Value"] == pik.__version__


def test_a_package_is_built_for_what_runs_it() -> None:
    functions = template()["Globals"]["Function"]
    assert functions["CodeUri"] == {"Fn::Sub": "packaging/${Architecture}"}
    for architecture in template()["Parameters"]["Architecture"]["AllowedValues"]:
        assert (ROOT / "packaging" / architecture / "Makefile").is_file()
    rules = (ROOT / "packaging/functions.mk").read_text()
    assert f"LAMBDA_PYTHON ?= {functions['Runtime'].removeprefix('python')}\n" in rules
    for function in FUNCTIONS:
        lock = (ROOT / f"packaging/{function}.lock").read_text()
        packages = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
        assert not packages & {"pyarrow", "rich", "typer"}, function
        assert ("duckdb" in packages) == (function in ("ReplayFunction", "ProcessorFunction")), function


def test_logs_end_and_alarms_stay_quiet_without_traffic() -> None:
    for name in resources("AWS::Logs::LogGroup"):
        assert properties(name, LogRetentionDays="7")["RetentionInDays"] == "7"
    for name in resources("AWS::CloudWatch::Alarm"):
        alarm = properties(name, AlarmTopicArn="topic")
        assert alarm["AlarmActions"] == ["topic"], name
        assert alarm["TreatMissingData"] == "notBreaching", name
        assert properties(name)["AlarmActions"] == [], name


def test_the_index_table_is_warmed_only_if_asked_for() -> None:
    assert "WarmThroughput" not in properties("IndexTable")
    assert properties("IndexTable", WarmWriteUnits="12000")["WarmThroughput"] == {"WriteUnitsPerSecond": "12000"}


def test_throttling_of_every_table_and_secondary_index_raises_an_alarm() -> None:
    expected = {
        (metric, table, index)
        for table, one in resources("AWS::DynamoDB::Table").items()
        for index in ("", *(each["IndexName"] for each in one["Properties"].get("GlobalSecondaryIndexes", ())))
        for metric in ("ReadThrottleEvents", "WriteThrottleEvents")
    }
    found = set()
    for name in resources("AWS::CloudWatch::Alarm"):
        alarm = properties(name)
        if alarm["Namespace"] == "AWS/DynamoDB":
            where = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
            found.add((alarm["MetricName"], where["TableName"], where.get("GlobalSecondaryIndexName", "")))
    assert found == expected


def test_a_slow_request_raises_an_alarm_before_it_runs_out_of_time() -> None:
    alarm = properties("IngestSlowAlarm")
    assert (alarm["MetricName"], alarm["Statistic"]) == ("Duration", "Maximum")
    assert alarm["Threshold"] < properties("IngestFunction")["Timeout"] * 1000


def test_alarms_and_dashboard_name_metrics_that_there_are() -> None:
    handlers = "".join(path.read_text() for path in Path(pik.__file__).parent.glob("lambdas/*.py"))
    namespace = "pik/AWS::StackName"
    named = {
        properties(name)["MetricName"]
        for name in resources("AWS::CloudWatch::Alarm")
        if properties(name)["Namespace"] == namespace
    }
    widgets = json.loads(properties("Dashboard")["DashboardBody"])["widgets"]
    for widget in widgets:
        lines = widget["properties"]["metrics"]
        if lines[0][0] == namespace:
            named |= {line[1] for line in lines if len(line) > 2}
    assert "IngestLagMs" in named
    assert len(named) >= 9
    assert {name for name in named if f'"{name}"' not in handlers} == set()


def test_every_skipped_check_has_a_reason() -> None:
    for name, resource in template()["Resources"].items():
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", []):
            assert skip["id"].startswith("CKV"), name
            assert len(skip["comment"]) > 20, (name, skip["id"])


def test_every_parameter_and_variable_is_documented() -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    for name in [*template()["Parameters"], *_environment("IngestFunction")]:
        assert f"`{name}`" in page, name
