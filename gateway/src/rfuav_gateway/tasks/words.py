"""What the gateway itself says, in English and in Chinese, and refusals that are told in either.

The operator's and the trainer's messages are English; they are quoted as they are.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Language = Literal["en", "zh"]
_MOST_RANGES = 32  # of one Accept-Language header
_RANGE = re.compile(r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?")


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """All sentences of one language; names in braces are filled in by `str.format`."""

    # The story of a task.
    pending: str
    in_queue: str
    estimated_start: str
    starting: str
    suspended: str
    cancelling: str
    cancelling_by: str
    cancelled: str
    cancelled_by: str
    failed: str

    # Notes on a task that was created.
    device_is_chosen: str
    always_shuffled: str

    # Answers to actions.
    stopped: str
    cancel_done: str
    deleted: str
    batch_started: str
    batch_failed: str

    # Errors.
    no_such_task: str
    no_such_job: str
    job_exists: str
    name_needed: str
    namespace_needed: str
    has_ended: str
    no_results: str
    already_ended: str
    not_ended: str
    other_content: str
    name_is_taken: str
    two_jobs: str
    no_weights_cache: str
    outside_roots: str
    no_relative_paths: str
    no_roots: str
    leaves_base: str
    unknown_scheme: str
    no_path: str
    one_folder: str
    save_path_needed: str
    volumes_only: str
    ratios_too_large: str
    unknown_methods: str
    no_preparations: str
    as_it_is: str
    no_callbacks: str
    no_callback_url: str
    private_callback_url: str

    # Cancels of many.
    would_cancel: str
    cancelled_many: str

    # Previews.
    starts_now: str
    starts_on_new_node: str
    would_wait: str
    about: str
    one_kind: str
    other_namespace: str

    # Limits of devices.
    limits_changed: str
    unknown_device: str
    limits_differ: str
    cpu_by_node: str
    limits_are_fixed: str


ENGLISH = Phrases(
    pending="Waits for the operator",
    in_queue="Place {position} of {of}",
    estimated_start="start expected at {at} UTC",
    starting="Its pods are being started",
    suspended="Suspended: the task keeps its place by age, and continues when spec.suspend is false",
    cancelling="Cancelled; its pods save a checkpoint and stop",
    cancelling_by="Cancelled by {user}; its pods save a checkpoint and stop",
    cancelled="Cancelled",
    cancelled_by="Cancelled by {user}",
    failed="{reason}: {message}",
    device_is_chosen="device {device}: the cluster chooses the GPU",
    always_shuffled="shuffle false is not possible: the order is random, and the same for the same seed",
    stopped="Task {task_id} is being stopped",
    cancel_done="Task {task_id} is cancelled",
    deleted="Task {task_id} is deleted",
    batch_started="{total} inference tasks created",
    batch_failed="{done} of {total} inference tasks created; then: {message}",
    no_such_task="Task {task_id} does not exist",
    no_such_job="{job} does not exist",
    job_exists="{job} exists: write another name",
    name_needed="metadata.name is missing: write a name of at most 40 lower-case letters, digits and hyphens",
    no_results="Task {task_id} has no results yet: a training has them after its first epoch, an inference with an "
    "evaluation after its last input",
    namespace_needed="metadata.namespace is missing: write the namespace of the job",
    has_ended="Task {task_id} has ended ({status})",
    already_ended="Task {task_id} has ended ({status}): only a task that has not can be cancelled",
    not_ended="Task {task_id} has not ended ({status}): cancel it before you delete it",
    other_content="Task {task_id} exists with other content: write another task_id, or delete that task first",
    name_is_taken="The job {job} exists and is not task {task_id}: write another task_id",
    two_jobs="{task_id} means several jobs: {jobs}. Ask by kind (/api/v2/training/..., /api/v2/inference/...) "
    "or in a namespace (/ns/NAMESPACE/...)",
    no_weights_cache="No folder with ImageNet weights is configured (weightsCache of the gateway): write pretrained "
    "false, or a weight_path",
    outside_roots="{path} is outside of the folders that are offered: {roots}",
    no_relative_paths="{path} is a relative path: write an absolute one below {roots}",
    no_roots="{path}: no folders are offered (roots of the gateway): write a URI such as pvc://CLAIM/path or "
    "s3://bucket/prefix",
    leaves_base="{path} leaves {base}, below which relative paths lie",
    unknown_scheme="{path}: write a path, or a URI with pvc://, s3://, hf:// or file://",
    no_path="A path is missing: write one below {roots}",
    one_folder="{name} is not the name of one folder: write it without '/', '\\', '..' and control characters, at most "
    "200 bytes long",
    save_path_needed="{path} has no folder beside it that results could go to: write save_path",
    volumes_only="{path} is not below a folder of a volume: data are prepared on volumes; write a path whose root is "
    "pvc://CLAIM",
    ratios_too_large="train_ratio leaves {rest} for the other parts: write at most that",
    unknown_methods="write one or more of {methods}",
    no_preparations="No image of the trainer is configured (trainerImage of the gateway): data cannot be prepared",
    as_it_is="{text}",
    no_callbacks="callbacks are not configured (callbacks.secretFile of the gateway): write no callback_url",
    no_callback_url="{url}: write a URL as in https://receiver.example.org/path, without a user and without #",
    private_callback_url="{host} is no address of the public internet: write another, or have its network listed in "
    "callbacks.allow of the gateway",
    would_cancel="{done} of {total} tasks would be cancelled: write dry_run false to do it",
    cancelled_many="{done} of {total} tasks are cancelled",
    starts_now="Starts now on {nodes}",
    starts_on_new_node="Starts when a node has been added for it",
    would_wait="Would wait: {why}",
    about="about {at} UTC",
    one_kind="{kind} is not a kind of task: write a TrainingJob or an InferenceJob of rfuav.io/v1alpha1",
    other_namespace="metadata.namespace is {named}, and the request is for {namespace}: write the same, or none",
    limits_changed="GPUPool {pool}: the limits of all GPUs of the same kind, and of cpu on every node, are changed; a "
    "GPU takes no more tasks than it has slots",
    unknown_device="{device} does not exist: write one of {devices}",
    limits_differ="{one} and {other} are GPUs of the same kind, which has one limit: write the same for both, or only "
    "one of them",
    cpu_by_node="cpu has a limit for each of its {nodes} nodes: write multiples of {nodes}",
    limits_are_fixed="limits are changed by administrators alone (kubectl edit gpupool {pool}), unless "
    "compat.changeLimits of the gateway is true",
)

CHINESE = Phrases(
    pending="等待 Operator 处理",
    in_queue="排队第 {position} 位，共 {of} 个",
    estimated_start="预计 {at} UTC 开始",
    starting="正在启动其 Pod",
    suspended="已挂起：任务按创建时间保留位置，spec.suspend 设为 false 后继续",
    cancelling="已取消；其 Pod 正在保存检查点并停止",
    cancelling_by="已被 {user} 取消；其 Pod 正在保存检查点并停止",
    cancelled="已取消",
    cancelled_by="已被 {user} 取消",
    failed="{reason}：{message}",
    device_is_chosen="device {device}：由集群选择 GPU",
    always_shuffled="不支持 shuffle false：顺序是随机的，种子相同则顺序相同",
    stopped="正在停止任务 {task_id}",
    cancel_done="任务 {task_id} 已取消",
    deleted="任务 {task_id} 已删除",
    batch_started="已创建 {total} 个推理任务",
    batch_failed="已创建 {total} 个推理任务中的 {done} 个；随后出错：{message}",
    no_such_task="任务 {task_id} 不存在",
    no_such_job="{job} 不存在",
    job_exists="{job} 已存在：请使用其他名称",
    name_needed="缺少 metadata.name：请填写名称，最多 40 个小写字母、数字和连字符",
    no_results="任务 {task_id} 还没有结果：训练在第一个轮次之后有结果，带评估的推理在处理完最后一个输入之后有结果",
    namespace_needed="缺少 metadata.namespace：请填写任务的命名空间",
    has_ended="任务 {task_id} 已结束（{status}）",
    already_ended="任务 {task_id} 已结束（{status}）：只能取消未结束的任务",
    not_ended="任务 {task_id} 未结束（{status}）：请先取消再删除",
    other_content="任务 {task_id} 已存在且内容不同：请使用其他 task_id，或先删除该任务",
    name_is_taken="作业 {job} 已存在，且不是任务 {task_id}：请使用其他 task_id",
    two_jobs="{task_id} 对应多个作业：{jobs}。请按类型（/api/v2/training/...、/api/v2/inference/...）"
    "或在命名空间内（/ns/NAMESPACE/...）查询",
    no_weights_cache="未配置 ImageNet 权重目录（网关的 weightsCache）：请将 pretrained 设为 false，或填写 weight_path",
    outside_roots="{path} 不在可用目录内：{roots}",
    no_relative_paths="{path} 是相对路径：请填写 {roots} 下的绝对路径",
    no_roots="{path}：未配置可用目录（网关的 roots）：请填写 URI，例如 pvc://CLAIM/path 或 s3://bucket/prefix",
    leaves_base="{path} 超出了相对路径所在的目录 {base}",
    unknown_scheme="{path}：请填写路径，或以 pvc://、s3://、hf://、file:// 开头的 URI",
    no_path="缺少路径：请填写 {roots} 下的路径",
    one_folder="{name} 不是单个目录名：不能包含“/”“\\”“..”和控制字符，最多 200 字节",
    save_path_needed="{path} 旁边没有可存放结果的目录：请填写 save_path",
    volumes_only="{path} 不在卷的目录内：数据只能在卷上预处理；请填写根目录为 pvc://CLAIM 的路径",
    ratios_too_large="train_ratio 只给其余部分留下 {rest}：请填写不大于该值的数",
    unknown_methods="请填写以下一种或多种：{methods}",
    no_preparations="未配置训练镜像（网关的 trainerImage）：无法预处理数据",
    as_it_is="{text}",
    no_callbacks="未配置回调（网关的 callbacks.secretFile）：请不要填写 callback_url",
    no_callback_url="{url}：请填写 https://receiver.example.org/path 形式的 URL，不含用户名和 #",
    private_callback_url="{host} 不是公网地址：请填写其他地址，或将其网段列入网关的 callbacks.allow",
    would_cancel="共 {total} 个任务，将取消 {done} 个：确认取消请将 dry_run 设为 false",
    cancelled_many="共 {total} 个任务，已取消 {done} 个",
    starts_now="现在即可在 {nodes} 上开始",
    starts_on_new_node="新节点加入后开始",
    would_wait="需要等待：{why}",
    about="约 {at} UTC 开始",
    one_kind="{kind} 不是任务类型：请填写 rfuav.io/v1alpha1 的 TrainingJob 或 InferenceJob",
    other_namespace="metadata.namespace 为 {named}，而请求的命名空间是 {namespace}：请填写相同的值，或不填写",
    limits_changed="GPUPool {pool}：同类 GPU 的上限以及每个节点上 cpu 的上限已更改；每个 GPU 的任务数不超过其槽位数",
    unknown_device="{device} 不存在：请填写 {devices} 之一",
    limits_differ="{one} 和 {other} 是同类 GPU，共用一个上限：请填写相同的值，或只填写其中一个",
    cpu_by_node="cpu 的上限按 {nodes} 个节点计算：请填写 {nodes} 的倍数",
    limits_are_fixed="只有管理员可以更改上限（kubectl edit gpupool {pool}），除非网关的 compat.changeLimits 为 true",
)

PHRASES: dict[Language, Phrases] = {"en": ENGLISH, "zh": CHINESE}


@dataclass(frozen=True)
class Said:
    """A sentence before its language is known: a name of `Phrases`, and what its braces hold."""

    phrase: str
    values: dict[str, Any] = field(default_factory=dict)

    def text(self, phrases: Phrases) -> str:
        """The sentence."""
        found: str = getattr(phrases, self.phrase)
        return found.format(**self.values)


def said(phrase: str, **values: object) -> Said:
    """A sentence; `values` fill its braces."""
    return Said(phrase, values)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field of a request."""

    field: str
    what: Said
    type: str = "value_error"
    index: int | None = None
    """Of a field that is a list: which entry."""

    def detail(self, phrases: Phrases) -> dict[str, Any]:
        """The entry in the `detail` of an answer 422."""
        entry = [] if self.index is None else [self.index]
        return {"loc": ["body", self.field, *entry], "msg": self.what.text(phrases), "type": self.type}


class RefusedError(ValueError):
    """A request that cannot become a job; `problems` say which fields, and what to write instead."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{one.field}: {one.what.text(ENGLISH)}" for one in problems))
        self.problems = problems


def language(accepted: str | None, default: Language = "en") -> Language:
    """The language that an Accept-Language header prefers; `default` if it names neither."""
    best, most = default, 0.0
    for text in (accepted or "").split(",", _MOST_RANGES)[:_MOST_RANGES]:
        found = _RANGE.fullmatch(text)
        if found is None:
            continue
        name, weight = found[1].lower(), min(float(found[2] or 1), 1.0)
        if weight > most and (name == "*" or name in PHRASES):
            best, most = (default if name == "*" else "zh" if name == "zh" else "en"), weight
    return best
