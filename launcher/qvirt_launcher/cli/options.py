"""The options of ``qvirt run``, in the groups that its help shows."""

from __future__ import annotations

import argparse

from qvirt_launcher.cli import values


def add_sources(parser: argparse.ArgumentParser) -> None:
    """What the manifest names, on this machine."""
    group = parser.add_argument_group("disks")
    _image_option(group)
    group.add_argument(
        "--pvc",
        metavar="CLAIM=PATH",
        action="append",
        default=[],
        help="the file, block device, or directory with a disk.img behind a persistentVolumeClaim; raw,"
        " unless ,format=qcow2 is appended; ,readonly keeps the guest from writing",
    )
    group.add_argument(
        "--secret",
        metavar="FILE",
        action="append",
        default=[],
        help="a manifest with Secrets that the VM names (they may also be in FILE itself)",
    )
    group.add_argument(
        "--insecure-registry",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="a registry to talk to without TLS or without checking its certificate",
    )
    group.add_argument(
        "--cache-dir", metavar="DIR", default="", help="where pulled images are kept"
    )


def _image_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--image",
        metavar="NAME=SOURCE",
        action="append",
        default=[],
        help="what a container image of the manifest is on this machine: a raw or qcow2 file, an OCI"
        " archive (a .tar, oci-archive:PATH[:TAG]), an OCI layout (oci:DIR[:TAG]), docker-archive:PATH, or"
        " docker://NAME. Images without one are pulled with skopeo",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """How the guest is connected."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--network",
        choices=("auto", "nat", "takeover", "user", "passt", "none"),
        default="auto",
        help="nat: a bridge of our own and NAT; takeover: the guest takes over the MAC and address of an"
        " interface, which this machine lacks meanwhile; passt, user: no privileges needed; auto (default): nat as root, else passt, else user",
    )
    group.add_argument(
        "--interface",
        metavar="[NETWORK=]NAME",
        action="append",
        default=[],
        help="takeover: the interface, for the pod network or the one of the spec that is named; without it"
        " that of the default route",
    )
    group.add_argument(
        "--publish",
        metavar="[ADDR:]HOST:GUEST[/udp]",
        action="append",
        default=[],
        help="with user and passt: let a port of this machine reach the guest; ADDR is 127.0.0.1 if not given",
    )


def add_behaviour(parser: argparse.ArgumentParser) -> None:
    """As whom, with what, in which terminal, and for how long."""
    group = parser.add_argument_group("how it runs")
    group.add_argument(
        "--accel",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="auto (default) tries KVM and falls back to emulation",
    )
    group.add_argument(
        "--user",
        metavar="USER",
        default="",
        help="as root: the user that launcher and QEMU run as; without it `qvirt` if there is one, else `nobody`",
    )
    mode = group.add_mutually_exclusive_group()
    mode.add_argument(
        "--detach",
        "-d",
        action="store_true",
        help="return when the guest runs, and leave it running",
    )
    mode.add_argument(
        "--console", "-c", action="store_true", help="attach this terminal to the serial console"
    )
    group.add_argument(
        "--wait",
        choices=("running", "ip"),
        default="running",
        help="how far the guest must come before --detach returns; ip: until it has taken its address",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=values.seconds,
        default=180.0,
        help="stop the guest and fail if it has not come so far (default 180)",
    )
    group.add_argument(
        "--log",
        metavar="FILE",
        default="",
        help="append the launcher's messages there, instead of to qvirt.log in the run directory, which"
        " goes away with the VM",
    )


def add_node(parser: argparse.ArgumentParser) -> None:
    """What the manifest names, on a node without a control plane."""
    group = parser.add_argument_group("the node")
    group.add_argument(
        "--launcher-image",
        metavar="IMAGE",
        default="localhost/qvirt/launcher:latest",
        help="the launcher's (default: localhost/qvirt/launcher:latest, as `make images` names it)",
    )
    group.add_argument(
        "--image",
        metavar="NAME=IMAGE",
        action="append",
        default=[],
        help="the node's name of a container image of the manifest",
    )
    group.add_argument(
        "--pvc",
        metavar="CLAIM=PATH",
        action="append",
        default=[],
        help="what a persistentVolumeClaim is on the node: a raw file, or with a slash at its end a directory"
        " with a disk.img; user 107 must be able to write it. ,readonly keeps the guest from writing",
    )
    group.add_argument(
        "--secret",
        metavar="FILE",
        action="append",
        default=[],
        help="a manifest with Secrets that cloud-init of the VM names (they may also be in FILE itself);"
        " their values become part of the pod",
    )
    group.add_argument(
        "--publish",
        metavar="[ADDR:]HOST:GUEST[/udp]",
        action="append",
        default=[],
        help="let a port of the node reach the guest; without ADDR on all of the node's addresses",
    )
    group.add_argument(
        "--accel",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="auto (default) tries KVM and falls back to emulation",
    )
