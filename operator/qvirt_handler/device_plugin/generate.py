"""``python -m qvirt_handler.device_plugin.generate [DIRECTORY]``: make `device_plugin_v1beta1_pb2` from its .proto."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

NAME: Final = "device_plugin_v1beta1"
HERE: Final = Path(__file__).parent


def main(directory: Path = HERE) -> int:
    """protoc's exit status."""
    # A tool of development, not of the image.
    from grpc_tools import protoc

    arguments = [f"--proto_path={HERE}", f"--python_out={directory}", f"--pyi_out={directory}"]
    status: int = protoc.main(["protoc", *arguments, f"{NAME}.proto"])
    return status


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
