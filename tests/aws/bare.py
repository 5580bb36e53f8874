"""The real template in the emulator, without the packages of its functions: what `pik stack` looks at, in a second."""

from __future__ import annotations

import copy
import json
from typing import Any

from pik.stores.aws.clients import Clients
from tests.aws.deployed import ARCHITECTURE
from tests.aws.template import template

_CODE = "def handler(event, context):\n    return {'statusCode': 503, 'body': '{}'}\n"


def deploy_bare(clients: Clients, name: str, **parameters: str) -> None:
    """Deploy it with these parameters and wait until it is there."""
    cloudformation = clients.client("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(_without_packages()),
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in {"Architecture": ARCHITECTURE, **parameters}.items()
        ],
    )
    cloudformation.boto.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})


def _without_packages() -> dict[str, Any]:
    made = copy.deepcopy(template())
    del made["Globals"]["Function"]["CodeUri"]
    for resource in made["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            del resource["Metadata"]
            resource["Properties"] |= {"InlineCode": _CODE, "Handler": "index.handler"}
    return made
