"""What a Ray cluster has, and whether a teacher fits on it."""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from r1distill.console import say
from r1distill.errors import UserError
from r1distill.serve.teacher import Teacher

HEAD = "node:__internal_head__"
WAIT_FOR_NODES_S = 180.0  # nodes of one job do not come at the same moment
ANSWER_S = 10.0


@dataclass(frozen=True)
class Cluster:
    """`devices` are the GPUs of each node, or its CPUs where vLLM runs on them."""

    head: str
    head_is_here: bool
    kind: str
    devices: tuple[int, ...]

    @property
    def largest(self) -> int:
        return max(self.devices, default=0)

    def words(self) -> str:
        return f"{sum(self.devices)} {self.kind}s on {len(self.devices)} node{'' if len(self.devices) == 1 else 's'}"

    def room_for(self, devices: int) -> int:
        """How many groups of so many devices fit. One that fits on a node is never spread over two."""
        if devices <= self.largest:
            return sum(count // devices for count in self.devices)
        return sum(self.devices) // devices


@contextmanager
def connected(address: str, key: str = "serve.ray") -> Iterator[None]:
    """Be a driver of the cluster. `key` is that of the recipe with its address. Raises UserError where none answers."""
    check_address(address, key)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{key} = {address}: no Ray cluster: {reason}; start one (`ray start --head`), leave {key} out, "
            "or set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to those of the cluster"
        ) from None
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put a handler of its own there
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str, key: str = "serve.ray") -> None:
    """Raise UserError for what is no HOST:PORT on which something listens: Ray itself would try for minutes, then abort."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()) or "/" in host:
        raise UserError(f"{key} = {address}: write it as HOST:PORT, as `ray start --head` prints it, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{key} = {address}: nothing answers there within {ANSWER_S:g} s ({error}); "
            "start Ray's head (`ray start --head`), or correct the address"
        ) from None


def look(is_cpu: bool) -> Cluster:
    """The cluster that this process is connected to."""
    kind = "CPU" if is_cpu else "GPU"
    nodes = [node for node in ray.nodes() if node["Alive"]]
    head = next((node for node in nodes if HEAD in node["Resources"]), nodes[0])
    return Cluster(
        head=head["NodeManagerAddress"],
        head_is_here=head["NodeManagerAddress"] == ray.util.get_node_ip_address(),
        kind=kind,
        devices=tuple(int(node["Resources"].get(kind, 0)) for node in nodes),
    )


def cluster_for(address: str, teacher: Teacher) -> Cluster:
    """The cluster, once it has room for the teacher. Raises UserError where it stays too small."""
    deadline = time.monotonic() + WAIT_FOR_NODES_S
    with connected(address):
        cluster = look(teacher.is_cpu)
        while (room := cluster.room_for(teacher.devices)) < teacher.replicas:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{teacher.name} needs {teacher.needs}; the Ray cluster at {address} has {cluster.words()} after "
                    f"{WAIT_FOR_NODES_S:g} s, room for {room} of {teacher.replicas} replicas; add nodes, "
                    "or lower serve.replicas or teacher.engine.tensor_parallel_size"
                )
            time.sleep(1.0)
            before, cluster = cluster, look(teacher.is_cpu)
            if cluster.devices != before.devices:
                say(f"the Ray cluster has {cluster.words()}; {teacher.name} needs {teacher.needs}")
        return cluster
