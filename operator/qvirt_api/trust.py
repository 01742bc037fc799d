"""Who must trust our authorities, and where its copy of the bundle stands (pure)."""

from __future__ import annotations

import copy
from typing import Final, Literal

from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model

Kind = Literal["webhooks", "conversion", "apiservice"]

_REGISTRATION: Final = "/apis/admissionregistration.k8s.io/v1"
_EXTENSIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_AGGREGATION: Final = "/apis/apiregistration.k8s.io/v1/apiservices"


class Target(Model, frozen=True, kw_only=True):
    """An object of the API server's through which it calls us."""

    path: str
    kind: Kind


#: Names are KubeVirt's.
MUTATOR: Final = "virt-api-mutator"
VALIDATOR: Final = "virt-api-validator"

TARGETS: Final[tuple[Target, ...]] = (
    Target(path=f"{_EXTENSIONS}/virtualmachines.kubevirt.io", kind="conversion"),
    Target(path=f"{_REGISTRATION}/mutatingwebhookconfigurations/{MUTATOR}", kind="webhooks"),
    Target(path=f"{_REGISTRATION}/validatingwebhookconfigurations/{VALIDATOR}", kind="webhooks"),
    Target(path=f"{_AGGREGATION}/v1.subresources.kubevirt.io", kind="apiservice"),
    Target(path=f"{_AGGREGATION}/v1alpha3.subresources.kubevirt.io", kind="apiservice"),
)


def with_bundle(kind: Kind, held: JsonObject, bundle: str) -> JsonObject:
    """The object with this bundle wherever it names us; equal to what it was when that is there already.

    :param bundle: base64 of PEM.
    """
    changed = copy.deepcopy(held)
    match kind:
        case "webhooks":
            for webhook in changed.get("webhooks") or ():
                webhook["clientConfig"]["caBundle"] = bundle
        case "conversion":
            conversion = changed["spec"].get("conversion") or {}
            if conversion.get("strategy") == "Webhook":
                conversion["webhook"]["clientConfig"]["caBundle"] = bundle
        case "apiservice":
            changed["spec"]["caBundle"] = bundle
    return changed
