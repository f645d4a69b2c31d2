"""One small model for all tests of the server."""

import pytest
from serving_support import app_of, make_models
from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The models' folder, and the clips of each system."""
    folder = tmp_path_factory.mktemp("served")
    clips = make_models(folder)
    return folder / "models", clips


@pytest.fixture
def client(world, tmp_path):
    with TestClient(app_of(world[0], tmp_path / "gallery.arrow")) as client:
        yield client
