"""What the tests of the deploy files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import nobodys_environment, run

__all__ = ["nobodys_environment", "peer_secret", "run"]


@pytest.fixture
def peer_secret(tmp_path: Path) -> Path:
    """A secret that raftkv takes."""
    path = tmp_path / "peer-secret"
    path.touch(mode=0o600)
    path.write_text("5e" * 32 + "\n")
    return path
