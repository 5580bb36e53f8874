"""The store in a deployed stack: raw in S3, the index and the state in two DynamoDB tables, the queue in SQS."""

from pik.stores.aws.http_api import open_api
from pik.stores.aws.open import open_aws, open_deployed
from pik.stores.aws.queue import invoke_later

__all__ = ["invoke_later", "open_api", "open_aws", "open_deployed"]
