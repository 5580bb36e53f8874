"""The handlers of the deployed stack: each decodes a request, calls one use case, and encodes its result."""
