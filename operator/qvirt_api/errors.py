"""What virt-api itself can fail at.

ApiError
├── BadCertificate   a certificate or key that can't be read
├── NoCertificate    the certificates are not made yet
└── BadReview        a request of the API server that is not a review of the expected version
"""

from __future__ import annotations

from qvirt_crds.errors import QvirtError


class ApiError(QvirtError):
    """Root of the room's errors."""


class BadCertificate(ApiError):
    """Not a PEM certificate with its key; made anew."""

    reason = "BadCertificate"


class NoCertificate(ApiError):
    """At the very start."""

    reason = "NoCertificate"


class BadReview(ApiError):
    """The caller is not an API server that speaks ``v1``."""

    reason = "BadReview"
