from __future__ import annotations

import pytest
from family import family_of


@pytest.fixture(scope="session")
def family(tmp_path_factory) -> dict[str, str]:
    return family_of(tmp_path_factory.mktemp("family"))
