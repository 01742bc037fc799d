"""A module a measurement; each has `async def measure() -> Measured`."""
