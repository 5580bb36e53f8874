"""The policies in docs/iam.md, from the table that the doctor asks IAM about."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pik.stores.aws.deployment.permissions import NAMES, POLICIES

PAGE = Path(__file__).parent.parent / "docs" / "iam.md"


def policy(level: str) -> dict[str, Any]:
    """Return the IAM policy of a level, with placeholders in capitals."""
    placeholders = {name: name.upper() for name in NAMES} | {"partition": "aws", "kms_key": ""}
    statements = []
    for each in POLICIES:
        resources = [resource.format(**placeholders) for resource in each.resources]
        if each.level == level and all(resources):  # the page says in words what a key takes
            one_or_all = [list(values) if len(values) > 1 else values[0] for values in (each.actions, resources)]
            statements.append({"Sid": each.sid, "Effect": "Allow", "Action": one_or_all[0], "Resource": one_or_all[1]})
    return {"Version": "2012-10-17", "Statement": statements}


def page() -> str:
    """Return docs/iam.md with its policies written anew."""
    return re.sub(
        r"(?<=<!-- policy:)(\w+)( -->\n```json\n).*?(?=```)",
        lambda found: f"{found[1]}{found[2]}{json.dumps(policy(found[1]), indent=2)}\n",
        PAGE.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
