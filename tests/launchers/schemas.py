"""Schemas of the targets, written from the field lists that their projects publish. An unknown key fails.

Kubernetes: API reference 1.32 (Deployment apps/v1, Service, ConfigMap, PodSpec, Container, Probe).
LeaderWorkerSet: kubernetes-sigs/lws, api/leaderworkerset/v1/leaderworkerset_types.go.
LLMInferenceService: kserve/kserve, pkg/apis/serving/v1alpha2/llm_inference_service_types.go.
RayService: ray-project/kuberay, config/samples/ray-service.llm-serve.yaml; Ray 2.60.0, ray/serve/schema.py and
ray/llm/_internal/serve/core/configs/llm_config.py.
SkyPilot 0.14.1: sky/utils/schemas.py. Production stack: helm/values.schema.json and the templates that read it.
Compose: compose-spec/compose-spec, schema/compose-spec.json. llama-swap: mostlygeek/llama-swap, config-schema.json.
"""

from typing import Any

__all__ = ["SCHEMAS"]

STRING = {"type": "string"}
COUNT = {"type": "integer", "minimum": 1}
STRINGS = {"type": "array", "items": STRING}
NAMES = {"type": "object", "additionalProperties": STRING}
# A label of DNS, as names of Kubernetes' objects are.
DNS = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"}


def strict(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def some(**properties: Any) -> dict[str, Any]:
    return strict([], **properties)


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


def one_of(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": list(schemas)}


METADATA = strict(["name"], name=DNS, labels=NAMES, annotations=NAMES)
SECRET_KEY = strict(["key"], name=STRING, key=STRING, optional={"type": "boolean"})
ENVIRONMENT = listed(
    one_of(
        strict(["name", "value"], name=STRING, value=STRING),
        strict(["name", "valueFrom"], name=STRING, valueFrom=some(secretKeyRef=SECRET_KEY)),
    )
)
PORT = {"anyOf": [STRING, COUNT]}
PROBE = some(
    httpGet=strict(["port"], path=STRING, port=PORT, scheme={"enum": ["HTTP", "HTTPS"]}),
    tcpSocket=strict(["port"], port=PORT),
    periodSeconds=COUNT,
    timeoutSeconds=COUNT,
    failureThreshold=COUNT,
    initialDelaySeconds=COUNT,
)
CONTAINER = strict(
    ["name"],
    name=DNS,
    image=STRING,
    command=STRINGS,
    args=STRINGS,
    env={**ENVIRONMENT, "minItems": 0},
    ports=listed(
        strict(["containerPort"], name={"type": "string", "maxLength": 15}, containerPort=COUNT, protocol=STRING)
    ),
    resources=some(limits=NAMES, requests=NAMES),
    volumeMounts=listed(strict(["name", "mountPath"], name=DNS, mountPath=STRING, readOnly={"type": "boolean"})),
    startupProbe=PROBE,
    readinessProbe=PROBE,
    livenessProbe=PROBE,
)
VOLUME = strict(
    ["name"],
    name=DNS,
    emptyDir=some(medium={"enum": ["", "Memory"]}, sizeLimit=STRING),
    hostPath=strict(
        ["path"], path=STRING, type={"enum": ["", "Directory", "DirectoryOrCreate", "File", "FileOrCreate"]}
    ),
    configMap=strict(["name"], name=DNS),
)
POD = strict(["containers"], containers=listed(CONTAINER), volumes=listed(VOLUME), nodeSelector=NAMES)
TEMPLATE = strict(["spec"], metadata=some(labels=NAMES, annotations=NAMES), spec=POD)

SERVICE = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "v1"},
    kind={"const": "Service"},
    metadata=METADATA,
    spec=some(
        selector=NAMES,
        type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        ports=listed(strict(["port"], name=STRING, port=COUNT, targetPort=PORT)),
    ),
)
CONFIG_MAP = strict(
    ["apiVersion", "kind", "metadata"],
    apiVersion={"const": "v1"},
    kind={"const": "ConfigMap"},
    metadata=METADATA,
    data=NAMES,
)
DEPLOYMENT = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "apps/v1"},
    kind={"const": "Deployment"},
    metadata=METADATA,
    spec=strict(
        ["selector", "template"],
        replicas=COUNT,
        strategy=some(type={"enum": ["Recreate", "RollingUpdate"]}),
        selector=some(matchLabels=NAMES),
        template=TEMPLATE,
    ),
)
GROUP = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "leaderworkerset.x-k8s.io/v1"},
    kind={"const": "LeaderWorkerSet"},
    metadata=METADATA,
    spec=strict(
        ["leaderWorkerTemplate"],
        replicas=COUNT,
        startupPolicy={"enum": ["LeaderCreated", "LeaderReady"]},
        leaderWorkerTemplate=strict(
            ["workerTemplate"],
            size=COUNT,
            restartPolicy={"enum": ["Default", "RecreateGroupOnPodRestart", "None"]},
            leaderTemplate=TEMPLATE,
            workerTemplate=TEMPLATE,
        ),
    ),
)
INFERENCE = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "serving.kserve.io/v1alpha2"},
    kind={"const": "LLMInferenceService"},
    metadata=METADATA,
    spec=some(
        model=strict(["uri"], uri={"type": "string", "pattern": "^(hf|s3|pvc)://"}, name=STRING, lora=some()),
        replicas=COUNT,
        parallelism=some(
            tensor=COUNT, pipeline=COUNT, data=COUNT, dataLocal=COUNT, dataRPCPort=COUNT, expert={"type": "boolean"}
        ),
        router=some(scheduler=some(), route=some(), gateway=some(), ingress=some()),
        template=POD,
        worker=POD,
        baseRefs=listed(some(name=STRING)),
    ),
)
LLM_CONFIG = strict(
    ["model_loading_config"],
    model_loading_config=strict(["model_id"], model_id=STRING, model_source=STRING),
    llm_engine=STRING,
    engine_kwargs={"type": "object", "propertyNames": {"pattern": "^[a-z0-9_]+$"}},
    accelerator_type=STRING,
    placement_group_config={"type": "object"},
    lora_config={"type": "object"},
    runtime_env=some(env_vars=NAMES),
    deployment_config=some(
        autoscaling_config=some(min_replicas=COUNT, max_replicas=COUNT, target_ongoing_requests=COUNT),
        max_ongoing_requests=COUNT,
    ),
)
SERVE = strict(
    ["applications"],
    applications=listed(
        strict(
            ["import_path"],
            name=STRING,
            route_prefix=STRING,
            import_path={"const": "ray.serve.llm:build_openai_app"},
            args=strict(["llm_configs"], llm_configs=listed(LLM_CONFIG)),
        )
    ),
)
RAY_GROUP = {"rayStartParams": NAMES, "template": TEMPLATE}
RAY_SERVICE = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=METADATA,
    spec=strict(
        ["serveConfigV2", "rayClusterConfig"],
        serveConfigV2=STRING,
        rayClusterConfig=strict(
            ["headGroupSpec"],
            rayVersion=STRING,
            headGroupSpec=strict(["template"], **RAY_GROUP),
            workerGroupSpecs=listed(
                strict(
                    ["groupName", "template"],
                    groupName=DNS,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    **RAY_GROUP,
                )
            ),
        ),
    ),
)
TASK = some(
    name=STRING,
    num_nodes=COUNT,
    resources=some(
        accelerators={"type": "object", "additionalProperties": COUNT},
        ports={"anyOf": [COUNT, STRING]},
        image_id={"type": "string", "pattern": "^docker:"},
        use_spot={"type": "boolean"},
        disk_size=COUNT,
    ),
    envs=NAMES,
    secrets={"type": "object", "additionalProperties": {"type": ["string", "null"]}},
    setup=STRING,
    run=STRING,
    service=strict(
        ["readiness_probe"],
        readiness_probe=strict(["path"], path=STRING, initial_delay_seconds=COUNT),
        replicas=COUNT,
    ),
)
VALUES = strict(
    ["servingEngineSpec"],
    servingEngineSpec=some(
        enableEngine={"type": "boolean"},
        startupProbe=some(
            httpGet=strict(["path", "port"], path=STRING, port=PORT),
            initialDelaySeconds=COUNT,
            periodSeconds=COUNT,
            failureThreshold=COUNT,
        ),
        strategy=some(type={"enum": ["Recreate", "RollingUpdate"]}),
        modelSpec=listed(
            strict(
                ["name", "repository", "tag", "modelURL", "replicaCount", "requestCPU", "requestMemory"],
                name=DNS,
                repository=STRING,
                tag=STRING,
                modelURL=STRING,
                replicaCount=COUNT,
                requestCPU=COUNT,
                requestMemory=STRING,
                requestGPU=COUNT,
                requestGPUType=STRING,
                shmSize=STRING,
                hf_token=strict(["secretName", "secretKey"], secretName=STRING, secretKey=STRING),
                env=listed(strict(["name", "value"], name=STRING, value=STRING)),
                vllmConfig=some(
                    dtype=STRING,
                    maxModelLen=COUNT,
                    maxNumSeqs=COUNT,
                    tensorParallelSize=COUNT,
                    gpuMemoryUtilization={"type": "number"},
                    enablePrefixCaching={"type": "boolean"},
                    enableChunkedPrefill={"type": "boolean"},
                    extraArgs=STRINGS,
                ),
            )
        ),
    ),
)
COMPOSE = strict(
    ["services"],
    services={
        "type": "object",
        "additionalProperties": strict(
            ["image"],
            image=STRING,
            entrypoint=STRINGS,
            command=STRINGS,
            ipc=STRING,
            ports=STRINGS,
            volumes=STRINGS,
            environment=STRINGS,
            restart=STRING,
            devices=STRINGS,
            group_add=STRINGS,
            security_opt=STRINGS,
            ulimits={"type": "object", "additionalProperties": {"type": "integer"}},
            healthcheck=some(test=STRINGS, interval=STRING, timeout=STRING, retries=COUNT, start_period=STRING),
            configs=listed(strict(["source"], source=STRING, target=STRING)),
            deploy=some(
                resources=some(
                    reservations=some(
                        devices=listed(
                            strict(
                                ["capabilities"],
                                driver=STRING,
                                device_ids=STRINGS,
                                count={"anyOf": [STRING, COUNT]},
                                capabilities=STRINGS,
                            )
                        )
                    )
                )
            ),
        ),
    },
    configs={"type": "object", "additionalProperties": strict(["content"], content=STRING)},
)
SWAP = strict(
    ["models"],
    healthCheckTimeout={"type": "integer", "minimum": 15},
    models={
        "type": "object",
        "additionalProperties": strict(
            ["cmd"],
            cmd=STRING,
            proxy=STRING,
            checkEndpoint={"type": "string", "pattern": "^/.*$|^none$"},
            ttl={"type": "integer", "minimum": -1},
            env={"type": "array", "items": {"type": "string", "pattern": "^[A-Z_][A-Z0-9_]*=.*$"}},
            aliases=STRINGS,
            useModelName=STRING,
        ),
    },
)

# Each document of a target fits one of its schemas.
SCHEMAS: dict[str, list[dict[str, Any]]] = {
    "compose": [COMPOSE],
    "kubernetes": [DEPLOYMENT, SERVICE, CONFIG_MAP],
    "lws": [GROUP, SERVICE, CONFIG_MAP],
    "kserve": [INFERENCE],
    "ray-serve": [SERVE],
    "rayservice": [RAY_SERVICE],
    "skypilot": [TASK],
    "production-stack": [VALUES],
    "llama-swap": [SWAP],
}
