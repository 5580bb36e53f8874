"""The queue of tasks in SQS, and functions called asynchronously.

A message is a task as JSON, among the dead letters too, where attributes hold the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec

from pik.errors import StoreError
from pik.model.run import DeadLetter, Task
from pik.ports.state import UNSETTLED, Message
from pik.runtime.retries import attempts
from pik.stores.aws.clients import Clients, Refused, translated
from pik.stores.aws.stack import Stack
from pik.stores.aws.state.layout import state_key
from pik.stores.aws.table import Item, Partition, Table, batched
from pik.stores.state_rows import damaged_row, read_letter, read_task, row_digest

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

BATCH = 10
BATCH_BYTES = 256 * 1024
"""What SendMessageBatch takes at most."""

LETTER_WAIT = 1
"""Seconds to wait for another dead letter; without waiting, SQS asks only some of its servers."""

PURGED: Partition[Item] = Partition("purged")
"""The partition of purged letters."""

_NO_QUEUE = "aws://STACK alone finds the queues of the stack; docs/configuration.md has what the URL may name"
_HIDDEN_WHILE_LISTED = 300  # seconds
_LONGEST_REASON = 4000  # characters of a reason that are kept with a letter
_GONE = {
    "ReceiptHandleIsInvalid",
    "InvalidParameterValue",  # what SQS calls a receipt handle that has expired
    "MessageNotInflight",
    "AWS.SimpleQueueService.MessageNotInflight",
}
_NOT_IN_SQS = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class AwsQueue:
    """See Queue and DeadLetters."""

    clients: Clients
    stack: Stack
    table: Table

    @property
    def _sqs(self) -> SQSClient:
        return self.clients.client("sqs")

    @property
    def _tasks(self) -> str:
        """The replay queue's URL. Raises StoreError."""
        return self._named(self.stack.queue_url, "queue_url")

    @property
    def _letters(self) -> str:
        """The URL of the queue of dead letters. Raises StoreError."""
        return self._named(self.stack.dead_letter_queue_url, "dead_letter_queue_url")

    def _named(self, url: str, option: str) -> str:
        if not url:
            raise StoreError(f"the URL of this store names bucket and tables, and no {option}", hint=_NO_QUEUE)
        return url

    def send(self, tasks: Iterable[Task]) -> int:
        sent = 0
        for bodies in _batches(msgspec.json.encode(task).decode() for task in tasks):
            self._call_batch(self._sqs.send_message_batch, self._tasks, [{"MessageBody": body} for body in bodies])
            sent += len(bodies)
        return sent

    def receive(self, run_id: str, visibility: float) -> Message | None:  # noqa: ARG002 - all runs share the queue
        for found in self._receive(self._tasks, 1, ceil(visibility), 0):
            return Message(read_task(found["Body"]), found["ReceiptHandle"], _receives(found))
        return None

    def acknowledge(self, receipt: str) -> None:
        with _unless_gone():
            self._sqs.delete_message(QueueUrl=self._tasks, ReceiptHandle=receipt)

    def release(self, message: Message, delay: float, reason: str = "") -> None:
        with _unless_gone():
            self._sqs.change_message_visibility(
                QueueUrl=self._tasks, ReceiptHandle=message.receipt, VisibilityTimeout=ceil(delay)
            )
        if reason:
            self.table.update(state_key(message.task), "SET #reason = :reason", {"reason": _shortened(reason)})

    def bury(self, message: Message, reason: str, failed_at: int, hint: str = "") -> None:
        task = message.task
        state = self.table.get(state_key(task))
        kept = _shortened(reason or (state.get("reason", UNSETTLED) if state else UNSETTLED))
        # The table first: SQS may itself move the message to the dead letters before this does.
        self.table.update(
            state_key(task),
            "SET #reason = :reason, #hint = :hint, #failed_at = :at",
            {"reason": kept, "hint": hint, "at": failed_at},
        )
        texts = {"reason": kept or "unknown", **({"hint": hint} if hint else {})}  # SQS takes no empty ones
        attributes: dict[str, MessageAttributeValueTypeDef] = {
            name: {"DataType": "String", "StringValue": _NOT_IN_SQS.sub("\ufffd", text)} for name, text in texts.items()
        }
        attributes["attempts"] = {"DataType": "Number", "StringValue": str(message.receives)}
        attributes["failed_at"] = {"DataType": "Number", "StringValue": str(failed_at)}
        with translated("sqs"):
            self._sqs.send_message(
                QueueUrl=self._letters,
                MessageBody=msgspec.json.encode(task).decode(),
                MessageAttributes=attributes,
            )

    def letters(self) -> list[DeadLetter]:
        with self._dead() as messages:
            tasks = {name: _task(message) for name, message in messages.items()}
            without_reason = {  # SQS itself moved these: the state table may have the reason
                state_key(task)
                for name, task in tasks.items()
                if isinstance(task, Task) and "reason" not in messages[name].get("MessageAttributes", {})
            }
            states = self.table.get_many(without_reason)
            letters = (_letter(message, tasks[name], states) for name, message in messages.items())
            return sorted(letters, key=lambda letter: (letter.failed_at, letter.letter_id))

    def purged(self) -> list[DeadLetter]:
        items = list(self.table.query(PURGED))
        if damaged := [item["sk"] for item in items if not letter_is_sound(item)]:
            raise damaged_row(f"dead letter {damaged[0]}")
        return [read_letter(item["body"]) for item in items]

    def purge(self, letters: Iterable[DeadLetter]) -> None:
        unwanted = {letter.letter_id: letter for letter in letters}
        self.table.write_many(map(purged_item, unwanted.values()))
        self.delete(unwanted.values())

    def delete(self, letters: Iterable[DeadLetter]) -> None:
        unwanted = {letter.letter_id for letter in letters}
        with self._dead() as found:
            chosen = [name for name, message in found.items() if _letter_id(message) in unwanted]
            for names in batched(chosen, BATCH):
                entries = [{"ReceiptHandle": found[name]["ReceiptHandle"]} for name in names]
                self._call_batch(self._sqs.delete_message_batch, self._letters, entries)
                for name in names:
                    del found[name]

    def drop(self, run_id: str) -> int:  # noqa: ARG002 - a shared queue cannot be searched
        return 0

    def _receive(self, url: str, most: int, visibility: int, wait: int) -> list[MessageTypeDef]:
        with translated("sqs"):
            answer = self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=most,
                VisibilityTimeout=visibility,
                WaitTimeSeconds=wait,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                MessageAttributeNames=["All"],
            )
        return answer.get("Messages", [])

    @contextmanager
    def _dead(self) -> Iterator[dict[str, MessageTypeDef]]:
        """Provide the dead letters by message id, hidden from others meanwhile. What is left in it becomes visible
        again."""
        found: dict[str, MessageTypeDef] = {}
        try:
            while some := self._receive(self._letters, BATCH, _HIDDEN_WHILE_LISTED, LETTER_WAIT):
                known = len(found)
                found.update((message["MessageId"], message) for message in some)
                if len(found) == known:
                    break  # looking took so long that the first ones are visible again
            yield found
        finally:
            for some in batched(found.values(), BATCH):
                entries = [{"ReceiptHandle": each["ReceiptHandle"], "VisibilityTimeout": 0} for each in some]
                self._call_batch(self._sqs.change_message_visibility_batch, self._letters, entries)

    def _call_batch(self, operation: Callable[..., Any], url: str, entries: Sequence[dict[str, Any]]) -> None:
        """Call a batch operation until it has taken every entry, or the entry's message is gone."""
        left = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        for _ in attempts():
            with translated("sqs"):
                failed = {each["Id"]: each for each in operation(QueueUrl=url, Entries=left).get("Failed", ())}
            refused = [each for each in failed.values() if each.get("SenderFault") and each["Code"] not in _GONE]
            if refused:
                raise StoreError(f"SQS refused a message ({refused[0]['Code']}): {refused[0].get('Message', '')}")
            left = [entry for entry in left if entry["Id"] in failed and failed[entry["Id"]]["Code"] not in _GONE]
            if not left:
                return
        raise StoreError(f"SQS does not take messages for {url}", hint="run the same command again later")


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        with translated("sqs"):
            yield
    except Refused as error:
        if error.code not in _GONE:
            raise


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + " … (cut)"


def _batches(bodies: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of at most ten bodies and 256 KiB."""
    batch: list[str] = []
    size = 0
    for body in bodies:
        length = len(body.encode())
        if batch and (len(batch) == BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += length
    if batch:
        yield batch


def _receives(message: MessageTypeDef) -> int:
    return int(message["Attributes"]["ApproximateReceiveCount"])


def _task(message: MessageTypeDef) -> Task | str:
    """Return the task of a message, or why it has none."""
    try:
        return read_task(message["Body"])
    except msgspec.MsgspecError as error:
        return f"this is not a pik task: {error}"


def _letter_id(message: MessageTypeDef) -> str:
    """Return a ULID of the time at which SQS got the message and the beginning of its message id."""
    from uuid import UUID

    from ulid import ULID

    sent = int(message["Attributes"]["SentTimestamp"])
    return str(ULID.from_bytes(sent.to_bytes(6, "big") + UUID(message["MessageId"]).bytes[:10]))


def _letter(
    message: MessageTypeDef, task: Task | str, states: Mapping[tuple[str, str], Mapping[str, Any]]
) -> DeadLetter:
    attributes = {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}
    if isinstance(task, str):
        reason, hint, task = task, "", Task(run_id="", number=0, metrics=(), start=0, end=0)
    else:
        state = attributes if "reason" in attributes else states.get(state_key(task), {})
        reason = state.get("reason") or "its processor ended, or ran out of time, each time"
        hint = state.get("hint", "")
    return DeadLetter(
        letter_id=_letter_id(message),
        task=task,
        reason=reason,
        hint=hint,
        # Listing counts as receiving, so this is a little too high for what SQS itself moved here.
        attempts=int(attributes.get("attempts", _receives(message))),
        failed_at=int(attributes.get("failed_at", int(message["Attributes"]["SentTimestamp"]) * 10**6)),
    )


def purged_item(letter: DeadLetter) -> Item:
    """Return the item of a purged letter."""
    body = msgspec.json.encode(letter).decode()
    return {"pk": PURGED, "sk": letter.letter_id, "body": body, "digest": row_digest("letter", letter.letter_id, body)}


def letter_is_sound(item: Item) -> bool:
    """Return whether the item of a purged letter is as it was written."""
    return bool(item.get("digest") == row_digest("letter", item["sk"], item["body"]))


@dataclass(frozen=True, slots=True)
class AwsBuffer:
    """The queue of buffered requests: what the API puts into it, the recorder function records."""

    clients: Clients
    url: str

    def put(self, message: str) -> None:
        """Send a message; the queue has it when this returns. Raises StoreError."""
        with translated("sqs"):
            self.clients.client("sqs").send_message(QueueUrl=self.url, MessageBody=message)

    def release(self, receipt: str, delay: float) -> None:
        """Let a message come again after so many seconds. Raises StoreError."""
        with _unless_gone():
            self.clients.client("sqs").change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=ceil(delay)
            )


def invoke_later(function: str, event: dict[str, Any]) -> None:
    """Call the function with `event` without waiting; Lambda repeats a call that fails. Raises StoreError."""
    with translated("lambda"):
        Clients().client("lambda").invoke(
            FunctionName=function, InvocationType="Event", Payload=msgspec.json.encode(event)
        )
