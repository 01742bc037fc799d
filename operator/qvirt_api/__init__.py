"""virt-api: admission, conversion between API versions, and the certificates of qvirt's own servers."""
