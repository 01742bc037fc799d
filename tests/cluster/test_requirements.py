"""The list of packages for apt and what the program looks for are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvirt_cluster.errors import MissingPackages
from qvirt_cluster.requirements import BUILD, RUN, require


def test_packages_txt_names_what_the_program_looks_for(room: Path) -> None:
    lines = (room / "packages.txt").read_text().splitlines()
    listed = [line.split("|")[0] for line in lines if line and not line.startswith("#")]
    assert listed == sorted(RUN) + sorted(BUILD)


def test_all_missing_packages_are_named_at_once_with_the_apt_line(tmp_path: Path) -> None:
    (tmp_path / "present").touch()
    wanted = {"one": "no-such-program-1", "two": "present", "three": str(tmp_path / "absent")}
    with pytest.raises(MissingPackages) as caught:
        require(wanted, besides=(tmp_path,))
    assert caught.value.packages == ("one", "three")
    assert "apt-get install --no-install-recommends one three" in str(caught.value)
