"""URLs of the API server, by kind."""

from __future__ import annotations

from typing import Final

_KUBEVIRT: Final = "/apis/kubevirt.io/v1"


def machines(namespace: str, name: str = "") -> str:
    """VirtualMachines of a namespace, or one of them."""
    return _in(_KUBEVIRT, namespace, "virtualmachines", name)


def instances(namespace: str, name: str = "") -> str:
    """VirtualMachineInstances."""
    return _in(_KUBEVIRT, namespace, "virtualmachineinstances", name)


def replica_sets(namespace: str, name: str = "") -> str:
    """VirtualMachineInstanceReplicaSets."""
    return _in(_KUBEVIRT, namespace, "virtualmachineinstancereplicasets", name)


def old_replica_sets(namespace: str, name: str = "") -> str:
    """VirtualMachineReplicaSets, which v1alpha1 alone has."""
    return _in("/apis/kubevirt.io/v1alpha1", namespace, "virtualmachinereplicasets", name)


def kubevirts(namespace: str, name: str = "") -> str:
    """KubeVirt objects."""
    return _in(_KUBEVIRT, namespace, "kubevirts", name)


def deployments(namespace: str, name: str = "") -> str:
    """Deployments."""
    return _in("/apis/apps/v1", namespace, "deployments", name)


def daemon_sets(namespace: str, name: str = "") -> str:
    """DaemonSets."""
    return _in("/apis/apps/v1", namespace, "daemonsets", name)


def pods(namespace: str, name: str = "") -> str:
    """Pods."""
    return _in("/api/v1", namespace, "pods", name)


def nodes(name: str = "") -> str:
    """Nodes, or one of them."""
    return f"/api/v1/nodes/{name}" if name else "/api/v1/nodes"


def claims(namespace: str, name: str = "") -> str:
    """PersistentVolumeClaims."""
    return _in("/api/v1", namespace, "persistentvolumeclaims", name)


def events(namespace: str, name: str = "") -> str:
    """Events of core/v1."""
    return _in("/api/v1", namespace, "events", name)


def revisions(namespace: str, name: str = "") -> str:
    """ControllerRevisions."""
    return _in("/apis/apps/v1", namespace, "controllerrevisions", name)


def leases(namespace: str, name: str = "") -> str:
    """Leases."""
    return _in("/apis/coordination.k8s.io/v1", namespace, "leases", name)


def _in(api: str, namespace: str, plural: str, name: str) -> str:
    path = f"{api}/namespaces/{namespace}/{plural}"
    return f"{path}/{name}" if name else path
