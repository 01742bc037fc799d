"""Who may call: the front proxy's certificate, its headers, one review for every row; and what everybody may read."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import ssl
import urllib.parse
from pathlib import Path

import pytest
from tests.api.subresources.conftest import Api, FakeHandler, FakeKube
from tests.api.virtctl import Virtctl

from qvirt_api.subresources.routes import _CLUSTER, VERBS
from qvirt_api.subresources.table import ENDPOINTS, GROUP, VERSIONS, Endpoint
from qvirt_kube.errors import Unavailable

_ROWS = [e for e in ENDPOINTS if e.name != "healthz"]
_PAGE = Path(__file__).parents[3] / "docs/subresources.md"
_BASE = f"/apis/{GROUP}/v1"


def path(endpoint: Endpoint, which: int = -1) -> str:
    return endpoint.paths[which].format(
        namespace="ns", name="vm", port=80, protocol="tcp", file="core/rfb.js"
    )


def test_every_row_works_or_says_what_is_missing() -> None:
    for endpoint in _ROWS:
        works = endpoint.key in VERBS or endpoint.key in _CLUSTER
        assert works is not bool(endpoint.missing), endpoint.key
    assert {e.key for e in _ROWS if not e.missing} == {*VERBS, *_CLUSTER}


@pytest.mark.parametrize("endpoint", _ROWS, ids=lambda e: f"{e.method} {e.key}")
async def test_every_row_is_reviewed(
    endpoint: Endpoint, jane: Virtctl, cluster: FakeKube, api: Api
) -> None:
    cluster.denied = "no RBAC policy matched"
    cluster.vm()
    cluster.vmi()
    for which in range(len(endpoint.paths)):
        cluster.reviews.clear()
        url = f"{api.url}{_BASE}{path(endpoint, which)}"
        answer = await jane.request(endpoint.method, url)
        assert (answer.status, answer.text) == (401, "no RBAC policy matched")
        assert answer.content_type == "text/plain"
        (review,) = cluster.reviews
        assert (review["user"], review["groups"]) == ("jane", ["developers"])
        wanted = review["resourceAttributes"]
        asked = "/".join(wanted[k] for k in ("resource", "subresource") if k in wanted)
        assert asked == endpoint.name
        assert wanted["verb"] == {"GET": "get", "PUT": "update"}[endpoint.method]
        assert wanted.get("namespace") == ("ns" if endpoint.namespaced else None)
        assert wanted.get("name") == ("vm" if "subresource" in wanted else None)
    assert not cluster.patches


@pytest.mark.parametrize(
    "endpoint", [e for e in _ROWS if e.missing], ids=lambda e: f"{e.method} {e.name}"
)
async def test_what_is_missing_is_said(endpoint: Endpoint, jane: Virtctl, api: Api) -> None:
    answer = await jane.request(endpoint.method, f"{api.url}{_BASE}{path(endpoint)}")
    assert answer.status == 501
    status = answer.json()
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", 501)
    assert status["message"] == f"{endpoint.name}: {endpoint.missing}"


async def test_an_error_of_the_review_is_500(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.failure = Unavailable("POST subjectaccessreviews", 503, "etcd is slow")
    answer = await jane.start("vm")
    assert answer.status == 500
    assert "etcd is slow" in answer.text


@pytest.mark.parametrize(
    ("headers", "certificate"),
    [
        (None, ""),
        (None, "somebody-else"),
        ({}, "front-proxy-client"),
        ({"X-Remote-User": ""}, "front-proxy-client"),
        ({"X-Remote-Group": "system:masters"}, "front-proxy-client"),
    ],
)
async def test_nobody_is_believed_without_the_front_proxy(
    headers: dict[str, str] | None, certificate: str, api: Api, cluster: FakeKube
) -> None:
    cluster.vm("Manual")
    async with api.client(headers, certificate) as client:
        answer = await client.start("vm")
    assert (answer.status, answer.text) == (401, "request is not authenticated")
    assert not cluster.reviews
    assert not cluster.patches


async def test_who_was_not_believed_connects_anew(api: Api) -> None:
    """A connection that is older than the trust in front proxies would be refused for as long as it lasts."""

    def ask() -> str | None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        host = urllib.parse.urlsplit(api.url).netloc
        connection = http.client.HTTPSConnection(host, timeout=10, context=tls)
        with contextlib.closing(connection):
            connection.request("GET", f"{_BASE}/version")
            answer = connection.getresponse()
            assert answer.status == 401
            return answer.headers["Connection"]

    assert await asyncio.to_thread(ask) == "close"


async def test_extra_is_passed_on(api: Api, cluster: FakeKube) -> None:
    headers = {
        "X-Remote-User": "system:serviceaccount:a:b",
        "X-Remote-Extra-Authentication.kubernetes.io%2FPod-Name": "p",
        "X-Remote-Extra-Scopes": "s",
    }
    async with api.client(headers) as client:
        await client.version()
    (review,) = cluster.reviews
    assert review["extra"] == {"authentication.kubernetes.io/pod-name": ["p"], "scopes": ["s"]}


async def test_the_front_proxy_may_change(api: Api, cluster: FakeKube) -> None:
    (config_map,) = [o for p, o in cluster.objects.items() if p.endswith("authentication")]
    config_map["data"]["requestheader-allowed-names"] = '["another"]'
    async with api.client() as client:
        assert (await client.version()).status == 200
        await api.services.front.refresh()
        assert (await client.version()).status == 401


async def test_discovery_is_for_everybody(api: Api) -> None:
    async with api.client({}, "") as client:

        async def get(path: str) -> dict[str, object]:
            answer = await client.request("GET", f"{api.url}{path}")
            assert (answer.status, answer.content_type) == (200, "application/json"), path
            found: dict[str, object] = answer.json()
            return found

        group = await get(f"/apis/{GROUP}")
        assert group["preferredVersion"] == {"groupVersion": f"{GROUP}/v1", "version": "v1"}
        assert (await get("/apis"))["groups"] == [group]
        for version in VERSIONS:
            listed = await get(f"/apis/{GROUP}/{version}")
            assert listed["groupVersion"] == f"{GROUP}/{version}"
            resources = listed["resources"]
            assert isinstance(resources, list)
            names = [resource["name"] for resource in resources]
            assert len(names) == len(set(names))
            assert {e.name for e in ENDPOINTS} == set(names)
            assert await get(f"/openapi/v3/apis/{GROUP}/{version}")
        swagger = await get("/openapi/v2")
        assert swagger["swagger"] == "2.0"
        assert await get("/openapi/v3")
        assert (await client.request("GET", f"{api.url}{_BASE}/healthz")).status == 200


async def test_operation_names_are_unique(api: Api, jane: Virtctl) -> None:
    swagger = (await jane.request("GET", f"{api.url}/openapi/v2")).json()
    operations = [o["operationId"] for path in swagger["paths"].values() for o in path.values()]
    assert len(operations) == len(set(operations))
    for path, methods in swagger["paths"].items():
        for operation in methods.values():
            named = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert all(f"{{{name}}}" in path for name in named)


async def test_paths_that_are_not_there(api: Api, jane: Virtctl) -> None:
    for rest in ("v1/nothing", "v2", "v1/namespaces/ns/virtualmachines/vm/fly"):
        answer = await jane.request("GET", f"{api.url}/apis/{GROUP}/{rest}")
        assert (answer.status, answer.json()["reason"]) == (404, "NotFound")


async def test_both_versions_mean_the_same(
    api: Api, cluster: FakeKube, handler: FakeHandler
) -> None:
    cluster.vmi()
    async with api.client(version="v1alpha3") as client:
        assert (await client.press("vm", "pause")).status == 200
    assert handler.calls[0][:2] == ("PUT", "pause")
    assert cluster.reviews[0]["resourceAttributes"]["version"] == "v1alpha3"


async def test_version(jane: Virtctl) -> None:
    answer = await jane.version()
    assert answer.status == 200
    keys = "gitVersion gitCommit gitTreeState buildDate goVersion compiler platform"
    assert set(answer.json()) == set(keys.split())
    assert answer.json()["gitVersion"].startswith("v")


async def test_guestfs_has_an_image_or_says_so(jane: Virtctl, api: Api) -> None:
    url = f"{api.url}{_BASE}/guestfs"
    answer = await jane.request("GET", url)
    assert (answer.status, "no image" in answer.message) == (501, True)
    api.services.facts = type(api.services.facts)(version="1", guestfs_image="registry/tools:1")
    assert (await jane.request("GET", url)).json()["gsImage"] == "registry/tools:1"


def test_the_page_names_every_row_where_it_belongs() -> None:
    rows = {}
    for line in _PAGE.read_text().splitlines():
        if line.startswith("| ") and line.count("|") == 4:
            resource, works, missing = (cell.strip() for cell in line.split("|")[1:4])
            rows[resource] = (works, missing)
    named = {"expand-vm-spec": "namespaces", "cluster": "of the cluster"}
    for endpoint in ENDPOINTS:
        works, missing = rows[named.get(endpoint.resource, endpoint.resource)]
        words = re.findall(r"[\w/-]+", missing if endpoint.missing else works)
        named_by = endpoint.key.partition("/")[2] or endpoint.name
        assert named_by in words, endpoint.key
