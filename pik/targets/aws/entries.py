"""Entries of the batch calls of SQS and SNS, which are alike but for their names."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from pik.ports.target import Message
from pik.targets.aws.batches import Failure
from pik.targets.aws.service import Service


def entry_of(message: Message, body: str, *, ordered: bool) -> tuple[dict[str, Any], int]:
    """Return a message as an entry that has its text as `body`, and its bytes as the service counts them; in a FIFO
    queue or topic messages of one entity are `ordered`."""
    text = _text_of(message)
    attributes, size = _attributes_of(message)
    entry: dict[str, Any] = {body: text, "MessageAttributes": attributes}
    if ordered:
        entry["MessageGroupId"] = _group_of(message.entity_id)
        entry["MessageDeduplicationId"] = message.message_id
    return entry, size + len(text.encode())


def submit_entries(
    service: Service, operation: str, permission: str, name: str, entries: Sequence[dict[str, Any]], **given: str
) -> dict[int, Failure]:
    """Call the service with the entries as its parameter `name`; return what it did not take, by position. What the
    answer does not mention was not taken either. Raises AwsError, TargetUnavailable."""
    numbered = [{"Id": str(place), **entry} for place, entry in enumerate(entries)]
    answer = service.call(operation, permission, **{name: numbered}, **given)
    taken = {int(each["Id"]) for each in answer.get("Successful", ())}
    failures = {
        place: Failure(f"{service.title} did not answer for it", passing=True)
        for place in range(len(entries))
        if place not in taken
    }
    for each in answer.get("Failed", ()):
        reason = f"{service.title} refused it ({each['Code']}): {each.get('Message') or each['Code']}"
        passing = not each.get("SenderFault", False)
        failures[int(each["Id"])] = Failure(reason, passing, service.hint(each["Code"], permission))
    return failures


def _group_of(entity_id: str) -> str:
    """Return the message group of an entity: its id, or a hash of it if AWS does not take that for a group."""
    if len(entity_id) <= 128 and all("!" <= character <= "~" for character in entity_id):
        return entity_id
    return "sha256-" + sha256(entity_id.encode()).hexdigest()


_NOT_IN_XML = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}


def _text_of(message: Message) -> str:
    """Return the body as text. What is valid in JSON but not in a message of SQS is written as an escape."""
    text = message.body.decode()
    return text if message.content_type == "text/plain" else text.translate(_NOT_IN_XML)


def _attributes_of(message: Message) -> tuple[dict[str, dict[str, str]], int]:
    """Return the message attributes, and their bytes as both services count them."""
    values = {**message.attributes, "content-type": message.content_type}
    size = sum(len(name) + len("String") + len(value) for name, value in values.items())
    return {name: {"DataType": "String", "StringValue": value} for name, value in values.items()}, size
