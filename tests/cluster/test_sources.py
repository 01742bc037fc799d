"""The machine's apt entries as source entries, and that its own files are not used."""

from __future__ import annotations

from pathlib import Path

from qvirt_cluster.sources import PrivateApt, source_entries_deb822, source_entries_list

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example
Suites: x
Components: main
"""


def test_stanzas_become_source_entries_and_disabled_ones_go() -> None:
    entries = source_entries_deb822(DEB822)
    assert entries.count("Types: deb-src\n") == 2
    assert "Types: deb\n" not in entries
    assert "Types: deb deb-src" not in entries
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in entries
    assert "off.example" not in entries


def test_a_file_without_entries_gives_nothing() -> None:
    assert source_entries_deb822("# empty\n") == ""
    assert source_entries_list("# deb http://commented.example x main\n") == ""


def test_lines_become_source_entries_each_once() -> None:
    text = (
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n"
        "deb-src [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n"
        "# deb http://off.example x main\n"
    )
    line = "deb-src [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n"
    assert source_entries_list(text) == line


def test_options_lead_away_from_the_machines_lists(tmp_path: Path) -> None:
    options = PrivateApt(tmp_path / "apt").options()
    assert f"-oDir::State::lists={tmp_path}/apt/lists" in options
    assert "-oDir::Etc::sourcelist=/dev/null" in options
    assert not any("/etc/apt" in option or "/var" in option for option in options)
