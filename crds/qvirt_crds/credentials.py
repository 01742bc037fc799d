"""``spec.accessCredentials``: ssh keys and passwords from Secrets, and the way they take into the guest (reference: KubeVirt v1 API)."""

from __future__ import annotations

from qvirt_crds.model import Empty, Model


class CredentialSecret(Model, frozen=True, kw_only=True):
    """A Secret of the same namespace."""

    secret_name: str


class CredentialSource(Model, frozen=True, kw_only=True):
    """Where credentials come from."""

    secret: CredentialSecret | None = None


class AgentUsers(Model, frozen=True, kw_only=True):
    """By the guest's agent, while the guest runs, for these of its users."""

    users: tuple[str, ...] = ()


class PublicKeyPropagation(Model, frozen=True, kw_only=True):
    """Exactly one. cloud-init's ways are those of the first boot."""

    no_cloud: Empty | None = None
    config_drive: Empty | None = None
    qemu_guest_agent: AgentUsers | None = None


class PublicKeyCredential(Model, frozen=True, kw_only=True):
    """ssh public keys: every value of the Secret, one a line."""

    source: CredentialSource
    propagation_method: PublicKeyPropagation


class PasswordPropagation(Model, frozen=True, kw_only=True):
    """Exactly one."""

    qemu_guest_agent: Empty | None = None


class PasswordCredential(Model, frozen=True, kw_only=True):
    """Passwords: the Secret's keys are names of the guest's users."""

    source: CredentialSource
    propagation_method: PasswordPropagation


class AccessCredential(Model, frozen=True, kw_only=True):
    """A Secret that opens the guest; exactly one kind."""

    ssh_public_key: PublicKeyCredential | None = None
    user_password: PasswordCredential | None = None

    @property
    def secret(self) -> str:
        """The Secret's name; empty when the entry isn't valid."""
        kind = self.ssh_public_key or self.user_password
        return kind.source.secret.secret_name if kind and kind.source.secret else ""
