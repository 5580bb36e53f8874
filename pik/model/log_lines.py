"""Usual lines of logs, as regular expressions with the names of their fields."""

_QUOTED = r'(?:[^"\\]|\\.)*'
_REQUEST = r'"(?P<request>(?P<method>[A-Z]+) (?P<path>(?:[^"\\ ]|\\.)+) (?P<protocol>[A-Z]+/[0-9.]+)|' + _QUOTED + r')"'


def _words(*names: str) -> str:
    return " ".join(rf"(?P<{name}>\S+)" for name in names)


def _quoted(*names: str) -> str:
    return " ".join(rf'(?:"(?P<{name}>{_QUOTED})"|-)' for name in names)


_COMMON = rf"{_words('host', 'ident', 'user')} \[(?P<time>[^\]]+)\] {_REQUEST} (?P<status>\d+) (?P<bytes>\d+|-)"

_S3_LATER = ("host_id", "signature_version", "cipher_suite", "authentication_type", "host_header", "tls_version")
_S3 = (
    rf"{_words('bucket_owner', 'bucket')} \[(?P<time>[^\]]+)\] "
    rf"{_words('remote_ip', 'requester', 'request_id', 'operation', 'key')} {_quoted('request_uri')} "
    rf"{_words('status', 'error_code', 'bytes_sent', 'object_size', 'total_time', 'turn_around_time')} "
    rf"{_quoted('referer', 'user_agent')} (?P<version_id>\S+)(?: {_words(*_S3_LATER)})?(?P<more>(?: \S+)*)"
)

_ALB = (
    r"(?P<type>https?|h2|grpcs|wss?) "
    + _words("time", "elb", "client", "target", "request_processing_time", "target_processing_time")
    + " "
    + _words("response_processing_time", "elb_status_code", "target_status_code", "received_bytes", "sent_bytes")
    + rf" {_quoted('request', 'user_agent')} {_words('ssl_cipher', 'ssl_protocol', 'target_group_arn')} "
    + _quoted("trace_id", "domain_name", "chosen_cert_arn")
    + rf" {_words('matched_rule_priority', 'request_creation_time')} "
    + _quoted("actions_executed", "redirect_url", "error_reason")
    + rf"(?: {_quoted('target_list', 'target_status_code_list', 'classification', 'classification_reason')})?"
    + "(?P<more>.*)"
)

PATTERNS = {
    "common": _COMMON,
    "combined": rf"{_COMMON} {_quoted('referer', 'user_agent')}",
    "s3-access": _S3,
    "alb": _ALB,
}
"""Those that are shipped, by name. Fields that were added to the end of a line later are in `more`."""
