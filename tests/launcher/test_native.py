"""System calls that Python has no name for, on the real kernel."""

from __future__ import annotations

import os
import subprocess
import sys

from qvirt_launcher import native

#: In a process of its own: a filter can't be taken off again. Every io_uring_setup(2) answers EPERM, as container runtimes have it.
_FORBIDDEN = """
import ctypes, struct
from qvirt_launcher import native
before = native.has_io_uring()
native.forbid_new_privileges()
# Classic BPF: load the call's number; if it is 425 give EPERM (SECCOMP_RET_ERRNO | 1), else allow.
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, ctypes.c_ulong(2), ctypes.c_char_p(program)) == 0, ctypes.get_errno()
print(before, native.has_io_uring())
"""


def test_io_uring_is_tried_and_leaves_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    native.has_io_uring()
    assert os.listdir("/proc/self/fd") == before


def test_io_uring_behind_a_filter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORBIDDEN], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [str(native.has_io_uring()), "False"]
