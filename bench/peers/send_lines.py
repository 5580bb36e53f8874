"""The job of a republish by hand: each event once, as a CloudEvent, per entity in order of time, to a file or by POST.

usage: send_lines.py EVENTS.jsonl FILE|http://HOST:PORT/PATH

Events are told apart by their values. Nothing is recorded on the way, so that it cannot go on after an interruption,
and memory grows with the input. Over HTTP up to eight entities are sent at a time, each over its own connection.
"""

import json
import os
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from hashlib import sha256
from http.client import HTTPConnection
from urllib.parse import urlsplit

source, target = sys.argv[1:]
seen: set[str] = set()
entities: dict[str, list[tuple[datetime, str, bytes]]] = defaultdict(list)
with open(source, encoding="utf-8") as file:
    for line in file:
        event = json.loads(line)
        payload = json.dumps(event["payload"], sort_keys=True, separators=(",", ":"))
        key = event.get("idempotency_key") or f"{event['event_time']} {payload}"
        text = "\x1f".join((event["source"], event["event_type"], event["entity_id"], key))
        event_id = sha256(text.encode()).hexdigest()[:32]
        if event_id in seen:
            continue
        seen.add(event_id)
        sent = {"specversion": "1.0", "id": event_id, "source": event["source"], "type": event["event_type"]}
        sent |= {"subject": event["entity_id"], "time": event["event_time"], "data": event["payload"]}
        time = datetime.fromisoformat(event["event_time"])
        entities[event["entity_id"]].append((time, event_id, json.dumps(sent).encode()))


def post(of_entities: list[list[tuple[datetime, str, bytes]]]) -> None:
    where = urlsplit(target)
    connection = HTTPConnection(where.netloc, timeout=30)
    for of_entity in of_entities:
        for _, event_id, body in of_entity:
            headers = {"Content-Type": "application/cloudevents+json", "pik-event-id": event_id}
            connection.request("POST", where.path, body, headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 204
    connection.close()


for one in entities.values():
    one.sort()
ordered = [entities[name] for name in sorted(entities)]
if "://" in target:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(post, (ordered[part::8] for part in range(8))))
else:
    with open(target, "wb") as out:
        for of_entity in ordered:
            out.writelines(body + b"\n" for _, _, body in of_entity)
        out.flush()
        os.fsync(out.fileno())
print(f"{len(seen):,}")
