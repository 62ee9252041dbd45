"""A local AWS for the tests of AWS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.local_aws import LocalAws


@pytest.fixture(scope="module")
async def aws(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalAws]:
    """A local AWS. Tests share it: each makes things under names of its own."""
    made = LocalAws(tmp_path_factory.mktemp("aws"))
    yield await made.start()
    made.close()
