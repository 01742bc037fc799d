"""The aggregated API ``subresources.kubevirt.io``: what virtctl and dashboards call beside the objects.

Who does what: `table` (the rows, data) -> `routes` (aiohttp) -> `guard` (who asks, may they) -> `power`, `instances`,
`streams`, `portforward`, `information` (the verbs), of which `decide_power` and `preconditions` decide without I/O,
and `node` talks to the virt-handler of the VM's node.
"""
