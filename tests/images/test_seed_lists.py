"""The guest's reader of YAML lists, run by the same awk as in the guest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

READER = Path(__file__).resolve().parents[2] / "images/guest/rootfs/lib/qvirt/items.awk"

pytestmark = pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")


def _items(key: str, text: str, *, shell: bool = False) -> list[str]:
    options = ["-v", f"key={key}", *(["-v", "shell=1"] if shell else [])]
    command = ["busybox", "awk", *options, "-f", str(READER)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "ssh-authorized-keys:\n  - ssh-rsa AAAA test@test.com\n",
        "#cloud-config\nssh_authorized_keys:\n- ssh-rsa AAAA test@test.com\n",
        "#cloud-config\nssh_authorized_keys: ['ssh-rsa AAAA test@test.com']\n",
        'users:\n  - name: x\n    ssh_authorized_keys:\n      - "ssh-rsa AAAA test@test.com" # me\n',
        "a: 1\r\nssh_authorized_keys:\r\n  - ssh-rsa AAAA test@test.com\r\nb:\r\n  - no\r\n",
        "users:\n  - ssh_authorized_keys:\n      - ssh-rsa AAAA test@test.com\n    name: x\n",
    ],
)
def test_ssh_keys_in_every_spelling(text: str) -> None:
    assert _items("ssh_authorized_keys", text) == ["ssh-rsa AAAA test@test.com"]


def test_commands_in_every_spelling() -> None:
    text = """#cloud-config
runcmd:
  - echo plain   # comment
  - "echo \\"double\\""
  - 'echo it''s single'
  - [ sh, -c, "echo a, b; it's $HOME" ]
  - |
    for i in 1 2; do
      echo $i
    done

  - echo last
other:
  - echo never
"""
    assert _items("runcmd", text, shell=True) == [
        "echo plain",
        'echo "double"',
        "echo it's single",
        "'sh' '-c' 'echo a, b; it'\\''s $HOME' ",
        "for i in 1 2; do",
        "  echo $i",
        "done",
        "",
        "echo last",
    ]


@pytest.mark.parametrize(
    "text", ["", "runcmd:\n", "ssh_authorized_keys_x:\n  - a\n", "- a\n", "plain"]
)
def test_nothing_there_is_no_item(text: str) -> None:
    assert _items("ssh_authorized_keys", text) == []
