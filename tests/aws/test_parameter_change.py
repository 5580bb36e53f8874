"""A parameter of a stack is changed without its template: the kill switch of docs/deploy.md."""

from __future__ import annotations

from pik.stores.aws.deployed_stack import SOURCE, describe_stack
from pik.stores.aws.stack import parameter_change
from tests.support.aws.commands import run
from tools.template import PATH

PAGE = PATH.parent / "docs" / "deploy.md"


def test_the_page_has_the_command() -> None:
    assert f"\n{parameter_change('pik', 'EnableProcessor', 'false')}\n" in PAGE.read_text(encoding="utf-8")


def test_the_kill_switch_leaves_every_other_parameter(aws, stack, tmp_path) -> None:
    run(parameter_change(stack.stack.name, "EnableProcessor", "false"), tmp_path)
    waiter = aws.client("cloudformation").get_waiter("stack_update_complete")
    waiter.wait(StackName=stack.stack.name, WaiterConfig={"Delay": 1})
    changed = describe_stack(aws, stack.stack.name)
    assert changed.parameters == {**stack.parameters, "EnableProcessor": "false"}
    assert changed.stack == stack.stack
    source = aws.client("lambda").get_event_source_mapping(UUID=changed.resource(SOURCE))
    assert source["State"] == "Disabled"
