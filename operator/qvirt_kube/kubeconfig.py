"""The door to the ``kubernetes`` package, which knows every way to log in that a kubeconfig can name.

It takes 16 MiB, most of it for models and for packages that those need. A pod logs in without it, and qvirt's image does
not have it.
"""

from __future__ import annotations

import ssl

from kubernetes.aio import client, config

from qvirt_kube.access import Access
from qvirt_kube.errors import NoAccess


async def from_kubeconfig(file: str | None) -> Access:
    """:param file: None: KUBECONFIG, else ``~/.kube/config``.

    :raise NoAccess: there is none, or it makes no sense.
    """
    settings = client.Configuration()
    try:
        await config.load_kube_config(file, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise NoAccess(
            f"kubeconfig {file or 'of KUBECONFIG or ~/.kube/config'}: {error}"
        ) from error

    async def authorization() -> str | None:
        return await settings.get_api_key_with_prefix("BearerToken", alias="authorization")

    return Access(
        server=settings.host,
        tls=_tls(settings),
        authorization=authorization,
        proxy=settings.proxy,
        server_name=settings.tls_server_name,
    )


def _tls(settings: client.Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ssl_ca_cert, cadata=settings.ca_cert_data)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, keyfile=settings.key_file)
    if not settings.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
