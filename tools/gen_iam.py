"""The policies in docs/iam.md, from the table that the doctor asks IAM about."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pik.ports.remote import Level
from pik.stores.aws.permissions import POLICIES

PAGE = Path(__file__).parent.parent / "docs" / "iam.md"


class _Placeholders(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name.upper()


_PLACEHOLDERS = _Placeholders(partition="aws", kms_key="")


def policy(level: Level) -> dict[str, Any]:
    """Return the IAM policy of a level, with placeholders in capitals."""
    statements = []
    for each in POLICIES[level]:
        resources = [resource.format_map(_PLACEHOLDERS) for resource in each.resources]
        if all(resources):  # the page says in words what a key takes
            action, resource = (list(values) if len(values) > 1 else values[0] for values in (each.actions, resources))
            statements.append({"Sid": each.sid, "Effect": "Allow", "Action": action, "Resource": resource})
    return {"Version": "2012-10-17", "Statement": statements}


def page() -> str:
    """Return docs/iam.md with its policies written anew."""
    return re.sub(
        r"(?<=<!-- policy:)(\w+)( -->\n```json\n).*?(?=```)",
        lambda found: f"{found[1]}{found[2]}{json.dumps(policy(Level(found[1])), indent=2)}\n",
        PAGE.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
