"""`status`: what runs, as seen now."""

from __future__ import annotations

from dataclasses import dataclass

from qvirt_cluster import processes
from qvirt_cluster.components import Site, components
from qvirt_cluster.layout import REGISTRY_PORT
from qvirt_cluster.probes import node_condition, sickness


@dataclass(frozen=True)
class Status:
    """:param rows: component, state, remark.
    :param facts: what one needs to use the cluster.
    """

    rows: tuple[tuple[str, str, str], ...]
    facts: tuple[tuple[str, str], ...]

    @property
    def well(self) -> bool:
        return all(state in ("healthy", "Ready") for _name, state, _remark in self.rows)

    def __str__(self) -> str:
        width = max(len(name) for name, _state, _remark in self.rows) + 2
        rows = [f"{name:<{width}}{state:<12}{remark}".rstrip() for name, state, remark in self.rows]
        facts = [f"{name:<{width}}{value}" for name, value in self.facts]
        return "\n".join([*rows, *facts])


def look(site: Site) -> Status:
    """Ask every component, and the API server about the node."""
    rows: list[tuple[str, str, str]] = []
    for name, component in components(site).items():
        record = processes.recorded(site.layout, name)
        if record is None or not record.alive:
            rows.append((name, "stopped", f"log: {site.layout.log(name)}"))
        elif why := sickness(site.layout, component.health):
            rows.append((name, "unhealthy", f"pid {record.pid}: {why}"))
        else:
            rows.append((name, "healthy", f"pid {record.pid}"))
    why = node_condition(site.layout, site.host.node)
    rows.append((f"node {site.host.node}", "NotReady" if why else "Ready", why))
    version = site.binaries.version
    security = "enforced" if version.enforces_pod_security else "not in this version (from 1.23)"
    facts = (
        ("version", f"Kubernetes {version} ({site.binaries.folder})"),
        ("PodSecurity", security),
        ("registry", f"127.0.0.1:{REGISTRY_PORT} (serves the images of every registry's name)"),
        ("kubeconfig", str(site.layout.admin_kubeconfig)),
        ("logs", str(site.layout.logs)),
    )
    return Status(tuple(rows), facts)
