"""What an `aws://` URL says."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from pik.errors import UsageError
from pik.stores.aws.clients import Clients


def address(url: str) -> tuple[str, Clients]:
    """The stack's name, and clients of its region with the caller's profile, of `aws://STACK?region=…&profile=…`.
    Raises UsageError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme != "aws" or not parts.netloc or parts.path.strip("/") or options.keys() - {"region", "profile"}:
        raise UsageError(f"{url} is no store", hint="aws://STACK or aws://STACK?region=eu-central-1&profile=NAME")
    return parts.netloc, Clients(options.get("region"), options.get("profile"))
