"""The storage server holds what the real client puts there."""

import pytest
from google.api_core.exceptions import NotFound, PreconditionFailed

from tests.fakes.gcs import GcsServer


@pytest.fixture(scope="module")
def gcs():
    with GcsServer(location="europe-west4") as server:
        server.create_bucket("models")
        yield server


def test_server_outlives_the_410_requests_after_which_the_wheels_wrapper_hangs(gcs):
    blob = gcs.client().bucket("models").blob("counted")
    for number in range(450):
        blob.upload_from_string(str(number))
    assert blob.download_as_text() == "449"


def test_bucket_reports_its_location_and_a_missing_one_is_not_found(gcs):
    assert gcs.client().get_bucket("models").location == "EUROPE-WEST4"
    with pytest.raises(NotFound):
        gcs.client().get_bucket("absent")


def test_create_if_absent_has_one_winner(gcs):
    blob = gcs.client().bucket("models").blob("manifest.json")
    blob.upload_from_string("first", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string("second", if_generation_match=0)
    assert blob.download_as_text() == "first"
