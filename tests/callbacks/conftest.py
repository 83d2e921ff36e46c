"""Tests of foreign projects run under both Lightnings."""

import pytest

from tests.callbacks.foreign_project import PACKAGES, package

# What these modules test takes long and differs little between the packages.
SLOW = ("test_foreign_examples_callback", "test_foreign_unmoved_callback")


def pytest_generate_tests(metafunc):
    """Run each test of a module ``test_foreign_…`` under both packages."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if module.startswith("test_foreign"):
        marks = pytest.mark.slow if module in SLOW else ()
        names = [PACKAGES[0], pytest.param(PACKAGES[1], marks=marks)]
        metafunc.parametrize("lightning", names, indirect=True, scope="module")


@pytest.fixture(autouse=True, scope="module")
def lightning(request):
    """Let modules and Trainers of the foreign project be those of one package."""
    package.use(getattr(request, "param", PACKAGES[0]))
    yield package
    package.use(PACKAGES[0])
