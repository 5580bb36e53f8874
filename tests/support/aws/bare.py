"""The real template in the emulator, without the packages of its functions: what `pik stack` looks at, in a second."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from typing import Any
from zipfile import ZipFile

from pik.stores.aws.clients import Clients
from pik.stores.aws.deployed_stack import FUNCTIONS, SOURCE, DeployedStack, describe_stack
from pik.stores.aws.package import MARK
from tests.support.aws.template import properties, template
from tools.sam import ARCHITECTURE

_CODE = "def handler(event, context):\n    return {'statusCode': 503, 'body': '{}'}\n"


def deploy_bare(clients: Clients, name: str, *, tls: bool = True, **parameters: str) -> DeployedStack:
    """Deploy it with these parameters, as AWS would. Without `tls`, plain HTTP is allowed: an emulator that evaluates
    policies denies it otherwise, and speaks nothing else."""
    cloudformation = clients.client("cloudformation")
    cloudformation.create_stack(**_request(name, tls, parameters))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return _set(describe_stack(clients, name))


def update_bare(clients: Clients, name: str, **parameters: str) -> DeployedStack:
    """Deploy it to a stack that is there, such as one that was made by an import."""
    cloudformation = clients.client("cloudformation")
    cloudformation.update_stack(**_request(name, True, parameters))
    cloudformation.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return _set(describe_stack(clients, name))


def _request(name: str, tls: bool, parameters: dict[str, str]) -> Any:
    given = {"Architecture": ARCHITECTURE, **parameters}
    return {
        "StackName": name,
        "TemplateBody": json.dumps(_without_packages(tls), separators=(",", ":")),  # AWS takes 51,200 bytes this way
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
    }


def _set(deployed: DeployedStack) -> DeployedStack:
    """Set what the emulator's CloudFormation leaves out, and the second step of a deployment: deletion protection."""
    dynamodb = deployed.clients.client("dynamodb")
    for table in (deployed.stack.index_table, deployed.stack.state_table):
        dynamodb.update_continuous_backups(
            TableName=table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)
    for function in FUNCTIONS:
        deployed.clients.client("lambda").update_function_code(
            FunctionName=deployed.outputs[function], ZipFile=package(deployed.parameters["Architecture"])
        )
    if deployed.parameters["EnableProcessor"] == "false":
        deployed.clients.client("lambda").update_event_source_mapping(UUID=deployed.resource(SOURCE), Enabled=False)
    lock = properties("RawBucket", **deployed.parameters)["ObjectLockConfiguration"]
    if "Rule" in lock:
        lock["Rule"]["DefaultRetention"]["Days"] = int(lock["Rule"]["DefaultRetention"]["Days"])
    deployed.clients.client("s3").put_object_lock_configuration(
        Bucket=deployed.stack.raw_bucket, ObjectLockConfiguration=lock
    )
    return deployed


def package(architecture: str) -> bytes:
    """A package that was built for this architecture, with nothing else in it."""
    file = BytesIO()
    with ZipFile(file, "w") as made:
        made.writestr("index.py", _CODE)
        made.writestr(MARK, f"{architecture}\n")
    return file.getvalue()


def _without_packages(tls: bool) -> dict[str, Any]:
    made = copy.deepcopy(template())
    del made["Globals"]["Function"]["CodeUri"], made["Metadata"]
    for described in (*made["Parameters"].values(), *made["Outputs"].values()):
        del described["Description"]
    for resource in made["Resources"].values():
        resource.pop("Metadata", None)
        resource["Properties"].pop("AlarmDescription", None)
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"] |= {"InlineCode": _CODE, "Handler": "index.handler"}
    if not tls:
        statements = made["Resources"]["RawBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        statements[:] = [each for each in statements if each["Sid"] != "DenyPlainHttp"]
        del made["Resources"]["QueuePolicy"]  # that is all it says
    return made


OF_THE_EMULATOR = {
    "Effect": "Allow",
    "Action": ["dynamodb:BatchExecuteStatement", "iam:SimulatePrincipalPolicy"],
    "Resource": "*",
}
"""It takes the first for an action; for AWS it is none, and those of the statements decide."""


def make_user(root: Clients, name: str) -> dict[str, str]:
    """The credentials of a new IAM user, as environment variables."""
    iam = root.client("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def grant(root: Clients, name: str, statements: list[Any]) -> None:
    """Give the user this policy, and no other."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    root.client("iam").put_user_policy(UserName=name, PolicyName="pik", PolicyDocument=policy)
