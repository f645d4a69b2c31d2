"""One small model for all tests of the server."""

import pytest
from serving_support import make_app, make_models
from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The folder of the models, and the clips per system."""
    folder = tmp_path_factory.mktemp("serving")
    clips = make_models(folder)
    return folder / "models", clips


@pytest.fixture
def client(world, tmp_path):
    with TestClient(make_app(world[0], tmp_path / "gallery.arrow")) as client:
        yield client
