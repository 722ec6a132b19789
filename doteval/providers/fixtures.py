"""The session fixture `model_providers`. A fixture of the same name in the user's files overrides it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from doteval.providers.shared_models import ModelProviders


@pytest.fixture(scope="session")
def model_providers() -> Iterator[ModelProviders]:
    """Model providers by name. The models that they set up are torn down at the end of the session at the latest."""
    from doteval.providers.shared_models import ModelProviders

    providers = ModelProviders()
    yield providers
    providers.close()
