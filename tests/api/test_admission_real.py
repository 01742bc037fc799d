"""A real API server calls virt-api: what is written, what is refused, what is defaulted."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import VirtApi, kubectl
from tests.control_plane import ApiServer

from qvirt_kube.client import Kube

Object = dict[str, Any]

_SEED = """
apiVersion: kubevirt.io/v1alpha1
kind: VirtualMachine
metadata:
  name: seed
spec:
  domain:
    resources:
      requests:
        memory: 64M
    devices:
      disks:
      - name: mydisk
        volumeName: myvolume
        disk:
          bus: virtio
  volumes:
  - name: myvolume
    registryDisk:
      image: registry.example/guest:1
"""


async def test_v1alpha1_is_stored_as_v1_and_read_back(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube, namespace: str
) -> None:
    await kubectl(api_server, "apply", "-n", namespace, "-f", "-", stdin=_SEED)
    group = "/apis/kubevirt.io"
    where = f"namespaces/{namespace}/virtualmachines/seed"
    new = await kube.get(f"{group}/v1/{where}")
    assert new["spec"]["runStrategy"] == "Once"
    old = await kube.get(f"{group}/v1alpha1/{where}")
    assert old["spec"]["volumes"][0]["registryDisk"]["image"] == "registry.example/guest:1"
    again = await kubectl(api_server, "apply", "-n", namespace, "-f", "-", stdin=_SEED)
    assert again.endswith("unchanged\n")
