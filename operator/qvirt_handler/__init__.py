"""virt-handler: the node's agent. Finds launchers of its node, gives them network and guest, tells the API server how guests are."""
