"""Labels, annotations, user ids and file names that two processes share.

Label and annotation names are KubeVirt's (reference: its API package, v1.9).
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "kubevirt.io"
API_V1: Final = "kubevirt.io/v1"
API_V1ALPHA3: Final = "kubevirt.io/v1alpha3"
API_V1ALPHA1: Final = "kubevirt.io/v1alpha1"

#: The user that owns guests' files in a pod, as in KubeVirt (its launcher's ``qemu`` user).
RUNTIME_UID: Final = 107

#: Files in a VM's run directory (``/run/qvirt/<namespace>/<name>`` without a cluster).
CONTROL_SOCKET: Final = "launcher.sock"
QMP_SOCKET: Final = "qmp.sock"
CONSOLE_SOCKET: Final = "console.sock"
SERIAL_SOCKET: Final = "serial0.sock"
VNC_SOCKET: Final = "vnc.sock"
AGENT_SOCKET: Final = "agent.sock"
CONSOLE_LOG: Final = "console.log"

#: A node's label, ``true`` where guests may go, and annotation: when its virt-handler last said so.
SCHEDULABLE: Final = "kubevirt.io/schedulable"
HEARTBEAT: Final = "kubevirt.io/heartbeat"

#: Finalizer of instances: they stay until their pods are gone.
FOREGROUND_DELETE: Final = "kubevirt.io/foregroundDeleteVirtualMachine"

#: Namespace of objects that name none.
DEFAULT_NAMESPACE: Final = "default"

#: Annotations that hold what the other API version can't say (`convert`).
ONLY_IN_V1ALPHA1: Final = "v1alpha1.qvirt.io/only-in-v1alpha1"
ONLY_IN_V1: Final = "v1alpha1.qvirt.io/only-in-v1"

#: Where the components are installed, and their certificates (Secrets ``tls.crt``, ``tls.key``; names are KubeVirt's).
INSTALL_NAMESPACE: Final = "kubevirt"
CA_CONFIG_MAP: Final = "kubevirt-ca"
CA_BUNDLE_KEY: Final = "ca-bundle"
CA_SECRET: Final = "kubevirt-ca"
API_SECRET: Final = "kubevirt-virt-api-certs"
HANDLER_SECRET: Final = "kubevirt-virt-handler-certs"
HANDLER_CLIENT_SECRET: Final = "kubevirt-virt-handler-client-certs"
#: Common names: of virt-handler's server, and of its only client, virt-api.
HANDLER_SERVER_CN: Final = "kubevirt.io:system:node:virt-handler"
HANDLER_CLIENT_CN: Final = "kubevirt.io:system:client:virt-handler"
#: The DNS name in the certificate of every virt-handler, whose pods are dialled by address: what a client checks.
HANDLER_SERVER_NAME: Final = "virt-handler.kubevirt.svc"
#: Service of virt-api in `INSTALL_NAMESPACE`.
API_SERVICE: Final = "virt-api"
#: virt-handler serves virt-api here.
NODE_SERVER_PORT: Final = 8186
#: Websocket subprotocol of consoles, screens and forwarded ports: bytes in binary messages.
PLAIN_STREAM: Final = "plain.kubevirt.io"
