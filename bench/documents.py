"""Records as CloudTrail writes them: in one document, and as JSON lines."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
_RECORD = (
    '{"eventVersion":"1.11","userIdentity":{"type":"AssumedRole","principalId":"AROAEXAMPLE%(user)04d:deploy",'
    '"arn":"arn:aws:sts::123456789012:assumed-role/deploy-%(user)d/deploy","accountId":"123456789012",'
    '"accessKeyId":"ASIAEXAMPLE%(user)08d","sessionContext":{"sessionIssuer":{"type":"Role",'
    '"principalId":"AROAEXAMPLE%(user)04d","arn":"arn:aws:iam::123456789012:role/deploy-%(user)d",'
    '"accountId":"123456789012","userName":"deploy-%(user)d"},"attributes":{"creationDate":"%(at)s",'
    '"mfaAuthenticated":"false"}}},"eventTime":"%(at)s","eventSource":"s3.amazonaws.com","eventName":"GetObject",'
    '"awsRegion":"eu-central-1","sourceIPAddress":"10.0.%(user)d.7","userAgent":"[aws-sdk-java/2.31 \\"app\\"]",'
    '"requestParameters":{"bucketName":"orders","Host":"orders.s3.eu-central-1.amazonaws.com","key":"day/%(n)d.json"},'
    '"responseElements":null,"additionalEventData":{"SignatureVersion":"SigV4","bytesTransferredIn":0,'
    '"bytesTransferredOut":%(n)d.5},"requestID":"%(n)016X","eventID":"00000000-0000-4000-8000-%(n)012x","readOnly":true,'
    '"resources":[{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::orders/day/%(n)d.json"},{"accountId":"123456789012",'
    '"type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::orders"}],"eventType":"AwsApiCall","managementEvent":false,'
    '"recipientAccountId":"123456789012","eventCategory":"Data"}'
)

FIELDS = (
    "source=eventSource",
    "event_type=eventName",
    "entity_id=userIdentity.sessionContext.sessionIssuer.userName",
    "event_time=eventTime",
    "idempotency_key=eventID",
    "payload=@",
)
"""The mapping of a record."""


def write_document(records: int, target: Path, *, as_lines: bool) -> None:
    """Write so many records, as JSON lines or in the list Records of one document."""
    with target.open("w") as file:
        if as_lines:
            file.writelines(f"{record}\n" for record in _records(records))
            return
        file.write('{"Records":[')
        for number, record in enumerate(_records(records)):
            file.write(f"{',' * bool(number)}{record}")
        file.write("]}\n")


def _records(count: int) -> Iterator[str]:
    for number in range(count):
        at = datetime.fromtimestamp(_START + number, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield _RECORD % {"n": number, "user": number % 250, "at": at}
