"""Virtual machines of a Kubernetes cluster, by its subresource API: what virtctl does, with the standard library alone."""
