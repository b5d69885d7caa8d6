"""Names of models."""

import pytest

from servolt.deployment import Deployment
from servolt.errors import ModelNotFoundError
from servolt.serve.catalogue import Catalogue, Offer
from servolt.sources import find_model

F16, Q8 = Deployment.of("guide:f16"), Deployment.of("guide:q8_0")


def catalogue(*deployments: Deployment) -> Catalogue:
    return Catalogue.of([(deployment, find_model(deployment)) for deployment in deployments])


@pytest.mark.parametrize("name", ["guide", "guide:latest", "GUIDE", "Guide:Q8_0", "guide:q8_0"])
def test_the_bare_name_is_q8_0_whatever_its_case(name: str) -> None:
    assert catalogue(F16, Q8).find(name).deployment == Q8


def test_f16_keeps_its_tag_beside_q8_0_and_has_the_name_when_alone() -> None:
    assert catalogue(F16, Q8).find("guide:f16").deployment == F16
    assert catalogue(F16).find("guide").deployment == F16


def test_a_file_is_served_under_its_stem() -> None:
    path = find_model(Q8).files[0]
    offer = catalogue(Deployment.of(path)).find("guide-q8_0")
    assert offer.deployment.model == path


def test_a_second_deployment_of_the_same_weights_is_told_apart() -> None:
    smaller = Deployment.of("guide:q8_0", max_model_len=512)
    names = {name for offer in catalogue(Q8, smaller) for name in offer.names}
    assert names == {"guide", "guide:q8_0", f"guide:q8_0-{smaller.digest[:6]}"}


def test_when_a_model_without_a_file_was_made_is_not_known() -> None:
    offers = catalogue(Q8, Deployment.of("replay", engine="replay")).offers
    assert (offers[0].created or 0) > 1_700_000_000
    assert offers[1].created is None
    gone = offers[0].model.model_copy(update={"files": ("/no/such/model.gguf",)})
    assert Offer(Q8, gone, ("gone",)).created is None


@pytest.mark.parametrize("name", ["nope", "guide:q4_0", "../guide", "", "x" * 5000])
def test_an_unknown_name_says_what_there_is(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"not found.*guide"):
        catalogue(Q8).find(name)
