"""Every row of the API, as data: routes, discovery, OpenAPI and the tests of completeness are made from it.

A row either has a handler (`routes`) or says in `missing` what is not there; then it answers 501.
"""

from __future__ import annotations

from typing import Final, Literal

from qvirt_crds.model import Model

GROUP: Final = "subresources.kubevirt.io"
#: Served with one meaning; the first is preferred.
VERSIONS: Final = ("v1", "v1alpha3")

Resource = Literal["virtualmachines", "virtualmachineinstances", "expand-vm-spec", "cluster"]
Method = Literal["GET", "PUT"]

_MIGRATION: Final = "live migration is not implemented"
_HOTPLUG: Final = "hot-plug of volumes is not implemented"
_DUMP: Final = "memory dumps are not implemented"
_SEV: Final = "AMD SEV is not implemented"
_GRAPH: Final = "the object graph (feature gate ObjectGraph) is not implemented"
_BACKUP: Final = "incremental backup (feature gate IncrementalBackup) is not implemented"
_PROFILER: Final = "the cluster profiler is not implemented"


class Endpoint(Model, frozen=True, kw_only=True):
    """One row: a resource, its subresource and the method that it answers to."""

    resource: Resource
    #: May have a slash (``vnc/screenshot``). Of ``cluster``: the whole name.
    subresource: str = ""
    method: Method
    #: Path parameters after the subresource; they are no part of what access is asked for.
    parameters: tuple[str, ...] = ()
    #: A path below the subresource with all that is below it: under its permission and no resource of its own, as
    #: what comes after ``pods/proxy``.
    below: str = ""
    #: What is not there; empty: the row works.
    missing: str = ""

    @property
    def key(self) -> str:
        """Which row it is; only what is `below` another has not its name."""
        return f"{self.name}/{self.below}" if self.below else self.name

    @property
    def name(self) -> str:
        """As discovery and RBAC have it."""
        match self.resource:
            case "cluster":
                return self.subresource
            case "expand-vm-spec":
                return self.resource
            case _:
                return f"{self.resource}/{self.subresource}"

    @property
    def namespaced(self) -> bool:
        return self.resource != "cluster"

    @property
    def paths(self) -> tuple[str, ...]:
        """Below ``/apis/<group>/<version>``, with ``{...}`` for what varies; several where parameters are optional."""
        match self.resource:
            case "cluster":
                return (f"/{self.subresource}",)
            case "expand-vm-spec":
                return ("/namespaces/{namespace}/expand-vm-spec",)
            case _:
                base = f"/namespaces/{{namespace}}/{self.resource}/{{name}}/{self.subresource}"
        if self.below:
            return (f"{base}/{self.below}", f"{base}/{self.below}/{{file}}")
        ends = [f"/{'/'.join(self.parameters[:n])}" for n in range(1, len(self.parameters) + 1)]
        return tuple(f"{base}{end}" for end in ends) or (base,)


def _rows(resource: Resource, method: Method, *names: str, missing: str = "") -> list[Endpoint]:
    return [
        Endpoint(resource=resource, subresource=name, method=method, missing=missing)
        for name in names
    ]


def _port_forward(resource: Resource) -> Endpoint:
    return Endpoint(
        resource=resource,
        subresource="portforward",
        method="GET",
        parameters=("{port}", "{protocol}"),
    )


_VM: Final = "virtualmachines"
_VMI: Final = "virtualmachineinstances"

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *_rows(_VM, "PUT", "start", "stop", "restart"),
    *_rows(_VM, "GET", "expand-spec"),
    _port_forward(_VM),
    *_rows(_VM, "PUT", "migrate", "evacuate/cancel", missing=_MIGRATION),
    *_rows(_VM, "PUT", "addvolume", "removevolume", missing=_HOTPLUG),
    *_rows(_VM, "PUT", "memorydump", "removememorydump", missing=_DUMP),
    *_rows(_VM, "GET", "objectgraph", missing=_GRAPH),
    *_rows(_VMI, "PUT", "pause", "unpause", "freeze", "unfreeze", "softreboot", "reset"),
    *_rows(_VMI, "GET", "guestosinfo", "userlist", "filesystemlist"),
    *_rows(_VMI, "GET", "console", "vnc", "vnc/screenshot"),
    Endpoint(resource=_VMI, subresource="vnc", method="GET", below="page"),
    _port_forward(_VMI),
    *_rows(_VMI, "GET", "usbredir", missing="USB redirection is not implemented"),
    *_rows(_VMI, "GET", "vsock", missing="vsock (feature gate VSOCK) is not implemented"),
    *_rows(_VMI, "PUT", "addvolume", "removevolume", missing=_HOTPLUG),
    *_rows(_VMI, "GET", "sev/fetchcertchain", "sev/querylaunchmeasurement", missing=_SEV),
    *_rows(_VMI, "PUT", "sev/setupsession", "sev/injectlaunchsecret", missing=_SEV),
    *_rows(_VMI, "PUT", "backup", "redefine-checkpoint", missing=_BACKUP),
    *_rows(_VMI, "PUT", "evacuate/cancel", missing=_MIGRATION),
    *_rows(_VMI, "GET", "objectgraph", missing=_GRAPH),
    Endpoint(resource="expand-vm-spec", method="PUT"),
    *_rows("cluster", "GET", "version", "guestfs", "healthz"),
    *_rows(
        "cluster",
        "GET",
        "start-cluster-profiler",
        "stop-cluster-profiler",
        "dump-cluster-profiler",
        missing=_PROFILER,
    ),
)
