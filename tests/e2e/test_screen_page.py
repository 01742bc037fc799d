"""The screen in a browser: noVNC from virt-api's page, through `kubectl proxy`, with a real guest behind it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tests.e2e.browser import Page, chromium
from tests.e2e.conftest import Cluster
from tests.e2e.guests import machine

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]


@contextlib.contextmanager
def kubectl_proxy(cluster: Cluster, account: str) -> Iterator[str]:
    """URL of the page of `vm`, with the rights of a service account."""
    user = f"system:serviceaccount:{cluster.namespace}:{account}"
    command = ("kubectl", "proxy", f"--kubeconfig={cluster.kubeconfig}", "--port=0", f"--as={user}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            started = re.search(r"127\.0\.0\.1:\d+", line)
            assert started, line
            yield f"http://{started[0]}{path(cluster)}"
        finally:
            process.terminate()


@contextlib.contextmanager
def qvirt_vnc(cluster: Cluster) -> Iterator[str]:
    """URL of the same page as the cluster's administrator, without kubectl."""
    options = ("--browser", "--proxy-only", "--kubeconfig", cluster.kubeconfig)
    command = (sys.executable, "-um", "qvirt_launcher.cli.main", "vnc", "vm", *options)
    words = (*command, "-n", cluster.namespace)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            started = re.search(r"http://127\.0\.0\.1:[^ ,]+", line)
            assert started, line
            yield started[0]
        finally:
            process.terminate()


def path(cluster: Cluster) -> str:
    base = f"/apis/subresources.kubevirt.io/v1/namespaces/{cluster.namespace}"
    return f"{base}/virtualmachineinstances/vm/vnc/page"


def account(cluster: Cluster, role: str) -> str:
    """One that has a role in the namespace, and is called like it."""
    cluster.kubectl("create", "serviceaccount", role)
    who = f"--serviceaccount={cluster.namespace}:{role}"
    cluster.kubectl("create", "rolebinding", role, f"--clusterrole={role}", who)
    return role


def test_a_guest_in_the_browser(cluster: Cluster) -> None:
    cluster.apply(machine("vm", "Halted"))
    with kubectl_proxy(cluster, account(cluster, "edit")) as url, chromium() as page:
        page.open(url)
        page.until("it says that nothing runs", lambda: "it is not running" in page.text)
        assert (page.state, page.title) == ("waiting", f"{cluster.namespace}/vm")

        cluster.patch("vm", "vm", runStrategy="Always")
        guest = cluster.running("vm")
        page.until("it connects by itself", lambda: page.state == "connected", 120)
        log_in(page)
        page.type("echo 'Shown in th'e'' brow'ser'\n")
        page.until("the command's output", lambda: "Shown in the browser" in page.screen())

        taking_over(cluster, page)

        boot = guest.run("cat /proc/sys/kernel/random/boot_id", 300)
        page.press("keys")
        cluster.until(
            "Ctrl-Alt-Del reboots the guest",
            lambda: guest.run("cat /proc/sys/kernel/random/boot_id", 300) != boot,
        )
        assert page.state == "connected"

        cluster.patch("vm", "vm", runStrategy="Halted")
        page.until("it says that the guest has ended", lambda: page.state == "waiting", 120)
        assert not page.complaints()


def log_in(page: Page) -> None:
    page.until("the guest's login", lambda: "login:" in page.screen(), 180)
    page.type("root\n")
    page.until("a prompt", lambda: page.screen().rstrip().endswith("#"))


def taking_over(cluster: Cluster, page: Page) -> None:
    """Another window, by `qvirt vnc`, gets the screen, and gives it back when the first one asks."""
    with qvirt_vnc(cluster) as url, chromium() as other:
        other.open(url)
        other.until("the other has it", lambda: "Shown in the browser" in other.screen())
        page.until("the first lost it", lambda: page.state == "disconnected")
        assert "somebody else" in page.text
        page.press("reconnect")
        page.until("the first has it again", lambda: "Shown in the browser" in page.screen())
        other.until("the other lost it", lambda: other.state == "disconnected")


def test_who_may_not_open_the_screen_has_no_page(cluster: Cluster) -> None:
    with kubectl_proxy(cluster, account(cluster, "view")) as url:
        for rest in ("", "/screen.js", "/state", "/novnc/core/rfb.js"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url + rest, timeout=30)
            with caught.value as answer:
                assert answer.code == 403
                assert b"cannot get resource" in answer.read()
        with chromium() as page:
            page.open(url)
            assert "forbidden" in page.text
            assert not page.state
