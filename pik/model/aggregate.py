"""Aggregates: the values that metrics compute, their versions, and the texts and digests by which they compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Context, Decimal
from hashlib import sha256
from itertools import groupby, islice
from operator import itemgetter

import msgspec

from pik.model.event import ENVELOPE


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why a metric has no value for one entity and bucket, although other values could be computed.

    `reason` is a phrase or a sentence for people, of one line; it may quote the engine or the event, so it is
    text from strangers. `events` is how many events of the bucket are to blame on their own, such as for a text where
    the metric needs a number; `event_ids` are the first of those, by id, at most BLAMED. Both are empty where no single
    event is to blame, such as for a denominator of zero. With `damage` raw of whole buckets cannot be read, up to the
    moment `until`, so that no value of them is known.
    """

    reason: str
    events: int = 0
    event_ids: tuple[str, ...] = ()
    damage: bool = False
    until: int = 0


BLAMED = 5
"""How many event ids a Failure lists at most."""


class Computed(msgspec.Struct, frozen=True, gc=False):  # a struct is made in a fifth of a dataclass's time
    """A metric's value for one entity (or ALL_ENTITIES) and bucket, computed from events.

    `bucket` is the bucket's start (nanoseconds), `inputs` the number of deliveries that were counted. `input_ids` and
    `input_contents`, 32 hex digits each, are the XOR of their event ids and of their content hashes; the second one is
    the XOR of `delivery_hash` instead where the metric reads what a content hash does not cover, or counts duplicates,
    and has that of each delivery that a correction moved to another time.
    `value` is None where there are no inputs, or where the expression over them is NULL, such as the sum of a field
    that none of them has. It is also None where it could not be computed from these events; only then there is a
    `failure`. An event whose condition (`where`) fails is not among the inputs, so a failure may have none.

    A value from outside was not computed: its `inputs` are not known (None). If it was imported, both hashes together
    are the SHA-256 of its file.
    """

    metric: str
    bucket: int
    entity_id: str
    value: Decimal | None
    inputs: int | None
    input_ids: str
    input_contents: str
    failure: Failure | None = None

    @property
    def counted(self) -> tuple[int | None, str, str]:
        """What tells one set of counted deliveries from another."""
        return self.inputs, self.input_ids, self.input_contents


NO_INPUTS = "0" * 32
"""The input_ids and input_contents of no deliveries."""

DELIVERY_FACTS = frozenset(field.name for field in ENVELOPE if not field.hashed)
"""Columns of a definition that belong to one delivery of an event, and that its content hash does not cover."""


def delivery_hash(content_hash: str, *facts: str | int) -> int:
    """Return the hash of a delivery's content and of facts beside it, the first 128 bits of SHA-256 over
    `CONTENT_HASH/TIME` for one that a correction moved, `CONTENT_HASH/BATCH_ID/SEQ` where it matters which delivery of
    its event it is, `CONTENT_HASH/BATCH_ID/SEQ/TIME` for both. TIME has nine digits after the second, and Z."""
    return int.from_bytes(sha256("/".join(map(str, (content_hash, *facts))).encode()).digest()[:16], "big")


class Aggregate(msgspec.Struct, frozen=True, gc=False):
    """One version of an aggregate: a computed value, and why it is what it is.

    `known_until` (nanoseconds) is the ingest time up to which the run knew events; `metric_version` the definition
    used, or, of an imported value, the latest one then; `reason` and `actor` are the run's. `sound` is False where the
    row is not as it was written; that is looked at where entities are named, or the reader asks for it. `base` is the
    run whose version was current when it was written (None: there was none); only a listing of all versions knows it.
    `retired_at` is set where it is shown: since when its metric is retired (0: it is not).
    """

    computed: Computed
    run_id: str
    metric_version: int
    known_until: int
    reason: str
    current: bool
    sound: bool = True
    actor: str = ""
    base: str | None = None
    retired_at: int = 0

    @property
    def is_imported(self) -> bool:
        """Whether it was imported from a file: what it counts is not known, and `known_until` is 0."""
        return self.computed.inputs is None

    @property
    def file_digest(self) -> str | None:
        """The SHA-256 of the file that it was imported from, in hex; None: it was computed."""
        return self.computed.input_ids + self.computed.input_contents if self.is_imported else None


class BucketDigest(msgspec.Struct, frozen=True, gc=False):
    """A bucket's aggregates in short, so that many equal ones need not be compared one by one.

    `aggregates` is their number, `digest` the SHA-256 in hex of their lines, ordered by entity (UTF-8), each with its
    line feed; a line is that of `digest_line`. Names hold no control characters, so no two sets of lines are the same
    text.
    Aggregates without a value are left out, but not those that failed: the line of such a one has no value, and so is
    that of no current one.

    For current versions it also has how many have no value, and the lowest and the highest metric version of all.
    """

    metric: str
    bucket: int
    aggregates: int
    digest: str
    without_value: int = 0
    lowest_version: int = 0
    highest_version: int = 0

    @property
    def values(self) -> tuple[int, str]:
        """What is the same wherever the values and what they were computed from are."""
        return self.aggregates, self.digest


def digest_line(entity_id: str, value: str, inputs: int | None, input_ids: str, input_contents: str) -> str:
    """Return the line of an aggregate, with its line feed. Inputs that are not known are `-`. Both hashes are in upper
    case; that of the contents is left out where it is the other one, as it is for nearly all. Databases write these
    lines themselves, in SQL."""
    hashes = (input_ids,) if input_contents == input_ids else (input_ids, input_contents)
    return "\x1f".join((entity_id, value, "-" if inputs is None else str(inputs), *hashes)) + "\n"


_LINES = 1024
"""Lines that are hashed at a time: a bucket may have more aggregates than memory should hold."""

DigestLines = tuple[int, str | None, int, int, int]
"""A bucket's start, one line or more of its digest with their line feeds (None: there is none), how many aggregates
beside them have no value, and the lowest and the highest metric version of all of these."""


def bucket_digests(metric: str, lines: Iterable[DigestLines]) -> Iterator[BucketDigest]:
    """Yield the digests of a metric's buckets, from the lines of their aggregates, by bucket and entity."""
    for bucket, group in groupby(lines, key=itemgetter(0)):
        digest, count, nulls = sha256(), 0, 0
        versions: list[int] = []
        while part := list(islice(group, _LINES)):
            _, texts, without, lowest, highest = zip(*part, strict=True)
            text = "".join(filter(None, texts))
            digest.update(text.encode())
            count += text.count("\n")
            nulls += sum(without)
            versions += min(lowest), max(highest)
        yield BucketDigest(metric, bucket, count, digest.hexdigest(), nulls, min(versions), max(versions))


JOINED_LINES = 1 << 16
"""Lines of digests whose text a database holds at a time, at most."""


def joinable(counts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """Cut buckets in order, given with how many aggregates they have at most, into spans (first, last) of JOINED_LINES
    aggregates or less, whose lines a database may join by bucket. The third value is False for a bucket that alone has
    more. A joined text costs much less than its lines one by one."""
    first = last = held = 0
    for bucket, count in counts:
        if held and held + count > JOINED_LINES:
            yield first, last, held <= JOINED_LINES
            held = 0
        first, last, held = bucket if not held else first, bucket, held + count
    if held:
        yield first, last, held <= JOINED_LINES


_LONG = Context(prec=200)


def with_scale(value: Decimal, scale: int) -> Decimal:
    """Return the value with at least `scale` digits after the point: 61.9 becomes 61.90. That is how values are
    printed."""
    digits = value.as_tuple().exponent
    short = isinstance(digits, int) and -digits < scale
    return value.quantize(Decimal(1).scaleb(-scale), context=_LONG) if short else value


def decimal_text(value: Decimal) -> str:
    """Return the shortest plain text of an exact value: no exponent, no trailing zeros. That is how values are
    stored."""
    if not value:  # -0 and 0E+3 are 0
        return "0"
    text = str(value)  # the faster of the two
    if "E" in text:
        text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
