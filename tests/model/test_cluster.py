"""Locations of clusters: what is one is decided here, before anything is started or created."""

from __future__ import annotations

import pytest

from pik.errors import UsageError
from pik.model.cluster import application, expect_cluster

ROLE = "arn:aws:iam::123456789012:role/teams/pik+jobs"

VALID = [
    "spark-submit",
    "spark://host:7077",
    "spark://10.0.0.1:7077,spare.example.org:65535",
    "spark://[::1]:7077",
    "local-cluster[2,1,1024]",
    "local-cluster[ 10, 2 ,4096 ]",
    "sc://host",
    "sc://host:15002/;token=a;use_ssl=true",
    f"emr-serverless://00f1abcdexample1?role={ROLE}",
]

INVALID = {
    "local-cluster": "local-cluster[WORKERS,CORES,MB]",
    "local-cluster[2": "local-cluster[WORKERS,CORES,MB]",
    "local-cluster[0,1,1024]": "numbers from 1 on",
    "local-cluster[2,1]": "local-cluster[WORKERS,CORES,MB]",
    "spark://": "spark://HOST:PORT",
    "spark://host": "spark://HOST:PORT",
    "spark://host:0": "spark://HOST:PORT",
    "spark://host:65536": "spark://HOST:PORT",
    "spark:/host:7077": "spark://HOST:PORT",
    "spark://ho st:7077": "spark://HOST:PORT",
    "sc://": "sc://HOST:PORT",
    "sc://:15002": "sc://HOST:PORT",
    "sc://host:port": "sc://HOST:PORT",
    "sc://host/path": "sc://HOST:PORT",
    "emr-serverless://00f1": "the role of its jobs is missing",
    "emr-serverless://00f1?role=": "the role of its jobs is missing",
    "emr-serverless://00f1?role=pik-jobs": "role=pik-jobs is not the ARN of a role",
    f"emr-serverless://00f1?role={ROLE}&region=eu-west-1": "unknown parameter 'region'",
    f"emr-serverless://?role={ROLE}": "'' is not the id of an application",
    f"emr-serverless://00f1/a?role={ROLE}": "'00f1/a' is not the id of an application",
    f"emr-serverless:00f1?role={ROLE}": "'00f1' is not the id of an application",
    "k8s://https://host": "does not submit such jobs",
    "yarn": "does not submit such jobs",
    "nowhere": "invalid location 'nowhere'",
    "": "invalid location ''",
    "spark-submit ": "invalid location 'spark-submit '",
    "Local": "invalid location 'Local'",
}


@pytest.mark.parametrize("location", VALID)
def test_a_valid_location_is_accepted(location: str) -> None:
    expect_cluster(location)


@pytest.mark.parametrize("location", INVALID)
def test_another_text_is_refused_in_words(location: str) -> None:
    with pytest.raises(UsageError) as refused:
        expect_cluster(location)
    assert INVALID[location] in refused.value.message
    assert repr(location) in refused.value.message
    assert "spark-submit" in refused.value.hint or "emr-serverless" in refused.value.hint


def test_a_location_of_jobs_is_an_application_and_a_role() -> None:
    assert application(f"emr-serverless://00f1abcdexample1?role={ROLE}") == ("00f1abcdexample1", ROLE)
