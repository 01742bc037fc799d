"""Guest disks and container images, built from Debian packages alone with the standard library.

This package runs before any virtual environment exists, so it imports nothing from outside and
nothing from the other rooms. `cli` is the door; every other module does one step of a build.
"""
