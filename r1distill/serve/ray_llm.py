"""Several copies of the teacher over the nodes of a Ray cluster, behind one URL on its head: Ray Serve LLM.

A node that dies takes its copies and the requests in them, which the client sends again; what hands the requests out
lives on the head. Ray Serve starts a lost copy anew as soon as there is a place for it.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata  # as Ray's own documentation does
from ray.llm._internal.serve.core.ingress.ingress import init as make_app
from ray.serve._private.common import ReplicaState
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from ray.serve.schema import ApplicationStatus

from r1distill.console import console, library_output_to, say
from r1distill.errors import UserError
from r1distill.sections import Serve
from r1distill.serve.cluster import HEAD, Cluster, connected
from r1distill.serve.key_guard import KeyGuard, digest_of
from r1distill.serve.teacher import RAY_STOP_S, Teacher, ray_configuration

APPLICATION = "r1distill"
LLM_DEPLOYMENT = "LLMServer:"  # how Ray Serve LLM begins the name of the copies
LOOK_EVERY_S = 1.0
MANY = 1_000_000_000  # requests at once: vLLM's queue is the one that counts


class Ingress(OpenAiIngress):
    """For one model, whose name may have a colon (quickstart:teacher): Ray takes what follows it for a LoRA adapter."""

    def __init__(self, llm_deployments: dict[str, Any], model_cards: dict[str, Any]) -> None:
        super().__init__(llm_deployments, model_cards)
        for name, handle in llm_deployments.items():
            self._configured_serve_handles[name] = handle.options(stream=True)

    async def _get_model_id(self, model: str | None) -> str:
        return model if model in self._model_cards else await super()._get_model_id(model)


def serve_on_ray(
    teacher: Teacher, settings: Serve, cluster: Cluster, key: str, timeout_s: float, ready_line: str, log: Path
) -> int:
    """Serve until an exception (a signal) ends it, or Ray gives up: then 1. What Ray and vLLM say here goes to `log`.

    `timeout_s` is how long the client waits for a reply; Ray's own limit would be ten minutes.
    """
    with library_output_to(log), connected(settings.ray):
        refuse_a_second_server(settings.ray)
        try:
            app = application(teacher, cluster, key, timeout_s)
        except ValueError as error:
            raise UserError(f"Ray Serve LLM does not take [teacher.engine]: {' '.join(str(error).split())}") from None
        try:
            with console.status(f"serve: starting {teacher.replicas} copies on {cluster.words()}, Ray's log is {log}"):
                serve.start(proxy_location="HeadOnly", http_options={"host": settings.host, "port": settings.port})
                serve.run(app, name=APPLICATION, route_prefix="/")
            say(ready_line)
            return watch(teacher)
        except (RayError, RuntimeError) as error:  # no copy came up, or the cluster is gone
            say(
                f"Ray Serve ended {teacher.name}: {' '.join(str(error).split())}; see {log}, and Ray's logs on its head"
            )
            return 1
        finally:
            with suppress(RayError, RuntimeError):
                serve.shutdown()


def refuse_a_second_server(address: str) -> None:
    """Ray Serve is one to a cluster; the end of ours would be the end of another's."""
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return
    raise UserError(
        f"serve.ray = {address}: Ray Serve already runs on this cluster, started by another r1distill serve or left "
        "behind by one that was killed; end it (`serve shutdown --yes`), or use another cluster"
    )


def application(teacher: Teacher, cluster: Cluster, key: str, timeout_s: float) -> serve.Application:
    """What `ray.serve.llm.build_openai_app` makes, with the key, the time limit and the place that it has no words for."""
    config = LLMConfig(**ray_configuration(teacher, cluster.largest))
    app = make_app()
    if key:
        app.add_middleware(KeyGuard, digest=digest_of(key.encode()))
    ingress = serve.deployment(
        num_replicas=teacher.replicas,
        max_ongoing_requests=MANY,
        ray_actor_options={
            "num_cpus": 0,
            "resources": {HEAD: 0.001},  # on the head, with which all ends anyway; no other node's death touches it
            "runtime_env": {"env_vars": {"RAY_SERVE_LLM_ROUTER_HTTP_TIMEOUT": str(timeout_s)}},
        },
        graceful_shutdown_timeout_s=RAY_STOP_S,
        graceful_shutdown_wait_loop_s=RAY_STOP_S / 2,
    )(make_fastapi_ingress(Ingress, app=app))
    return ingress.bind(
        llm_deployments={config.model_id: build_llm_deployment(config)},
        model_cards={config.model_id: to_model_metadata(config.model_id, config)},
    )


def watch(teacher: Teacher) -> int:
    """Say how many copies answer, whenever it changes. Returns 1 when Ray Serve has given up."""
    answering = teacher.replicas
    while True:
        time.sleep(LOOK_EVERY_S)
        status = serve.status().applications.get(APPLICATION)
        if status is None or status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.DELETING):
            say(f"Ray Serve ended {teacher.name}: {status.message if status else 'it was shut down by another'}")
            return 1
        now = sum(
            deployment.replica_states.get(ReplicaState.RUNNING, 0)
            for name, deployment in status.deployments.items()
            if name.startswith(LLM_DEPLOYMENT)
        )
        if now != answering:
            say(f"{time.strftime('%H:%M:%S')}  {now} of {teacher.replicas} copies answer")
            answering = now
