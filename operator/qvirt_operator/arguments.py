"""The flags of virt-controller."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence

from qvirt_crds.model import Model
from qvirt_crds.names import INSTALL_NAMESPACE
from qvirt_pods.settings import Settings


class Arguments(Model, frozen=True, kw_only=True):
    """What the command line says."""

    settings: Settings
    #: Where the lease is.
    namespace: str
    identity: str
    #: Watch only this namespace; None: all.
    watch_namespace: str | None
    kubeconfig: str | None
    health_host: str
    health_port: int
    verbose: bool


def parse(argv: Sequence[str]) -> Arguments:
    """:raise SystemExit: wrong flags; argparse has said why."""
    parser = argparse.ArgumentParser(
        prog="virt-controller",
        description="Turns VirtualMachines into running guests: one launcher pod for each instance.",
    )
    add = parser.add_argument
    add("--launcher-image", required=True, help="image of the launcher pods")
    add(
        "--image-pull-policy",
        choices=("Always", "IfNotPresent", "Never"),
        default="IfNotPresent",
        help="of the launcher's image",
    )
    add("--image-volumes", action="store_true", help="the cluster has OCI image volumes")
    add("--use-emulation", action="store_true", help="never ask nodes for KVM")
    add(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", INSTALL_NAMESPACE),
        help="namespace of the lease (default: POD_NAMESPACE, else kubevirt)",
    )
    add(
        "--watch-namespace",
        help="care for this namespace only, and read the KubeVirt object once (default: all)",
    )
    add(
        "--identity",
        default=os.environ.get("POD_NAME", socket.gethostname()),
        help="name of this replica (default: POD_NAME, else the host's name)",
    )
    add("--kubeconfig", help="default: the pod's service account, else KUBECONFIG")
    add("--health-host", default="", help="address of /healthz and /readyz (default: all)")
    add("--health-port", type=int, default=8081, help="its port (default: 8081)")
    add("--verbose", action="store_true", help="log every step")
    found = parser.parse_args(argv)
    settings = Settings(
        launcher_image=found.launcher_image,
        image_pull_policy=found.image_pull_policy,
        image_volumes=found.image_volumes,
        use_emulation=found.use_emulation,
    )
    return Arguments(
        settings=settings,
        namespace=found.namespace,
        identity=found.identity,
        watch_namespace=found.watch_namespace,
        kubeconfig=found.kubeconfig,
        health_host=found.health_host,
        health_port=found.health_port,
        verbose=found.verbose,
    )
