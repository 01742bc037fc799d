"""What is known of the guest's interfaces: planned in the attachments, taken when the guest asked for its address."""

from __future__ import annotations

from qvirt_crds.report import Attachment, GuestInterface
from qvirt_netsetup.dhcp import LeaseEvent


class Interfaces:
    """Attachments and what their guests did about the leases. Changed by `note` alone."""

    def __init__(self, attachments: tuple[Attachment, ...] = ()) -> None:
        self._attachments = attachments
        #: Interface -> the protocols whose address the guest has.
        self._leased: dict[str, set[str]] = {a.interface: set() for a in attachments}

    def note(self, interface: str, event: LeaseEvent) -> bool:
        """A guest took or gave up an address; returns whether that is news."""
        leased = self._leased[interface]
        if (event.protocol in leased) == event.leased:
            return False
        (leased.add if event.leased else leased.discard)(event.protocol)
        return True

    def report(self) -> tuple[GuestInterface, ...]:
        """As `VmReport` has them, addresses without their prefix length."""
        return tuple(self._one(attachment) for attachment in self._attachments)

    def _one(self, attachment: Attachment) -> GuestInterface:
        lease = attachment.lease
        return GuestInterface(
            name=attachment.interface,
            mac=attachment.mac,
            address=lease.address.partition("/")[0] if lease else "",
            address6=lease.address6.partition("/")[0] if lease else "",
            leased=bool(self._leased[attachment.interface]),
            publish=attachment.publish,
        )
