"""Every key of the configuration: its default, its range and what it means, one dataclass a group.

(They are not frozen: OmegaConf reads a frozen dataclass as read-only and could not compose it.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from backend import aws_forms

_NETWORK = (r"[0-9a-fA-F.:]+(/\d{1,3})?", "addresses or networks, such as [10.0.0.7,fd00::/8]")
_GROUP = (r"\S(.{0,253}\S)?", "group names, such as [lab-admins,staff]")
_T = TypeVar("_T")


def _key(
    default: _T,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    form: tuple[str, str] | None = None,
) -> _T:
    """A key. ``form`` is a regular expression and the words for it."""
    meta = {"text": text, "low": low, "high": high, "choices": choices, "form": form}
    return field(default=default, metadata=meta)


def _each(text: str, form: tuple[str, str]) -> dict[str, Any]:
    """What is known of a key that holds a list of texts, each of this form."""
    return {"text": text, "low": None, "high": None, "choices": (), "form": form}


@dataclass
class ServerSettings:
    """The web server."""

    host: str = _key(
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 for all",
        form=(r"[^\s/]+", "a host name or an address, such as 127.0.0.1"),
    )
    port: int = _key(8080, "Port to listen on", low=1, high=65_535)
    public_url: str | None = _key(
        None,
        "Address under which people and VMs reach this server; default http://<host>:<port>",
        form=(r"https?://[^\s/]+(/\S*)?", "an http:// or https:// address"),
    )
    # Not below what an agent sends at once: a batch of log lines.
    body_limit_bytes: int = _key(1_000_000, "Largest request body, in bytes", low=300_000, high=100_000_000)
    session_hours: int = _key(12, "How long an admin stays signed in, in hours", low=1, high=720)
    sign_in_attempts: int = _key(10, "Failed sign-ins allowed per address within the window", low=1, high=1_000)
    sign_in_window_s: int = _key(300, "The window for failed sign-ins, in seconds", low=10, high=86_400)
    request_timeout_s: int = _key(
        30, "Seconds within which a request, its headers and its body, must have arrived", low=2, high=600
    )
    max_connections: int = _key(10_000, "Most connections at once; further ones get 503", low=10, high=1_000_000)
    trusted_proxies: list[str] = field(
        default_factory=list, metadata=_each("Proxies whose X-Forwarded-For, -Proto and -Host are believed", _NETWORK)
    )
    metrics: bool = _key(
        False,
        "Whether /metrics (Prometheus) is served: to LABLINK_METRICS_TOKEN and to whoever may look at the console",
    )
    drain_s: int = _key(
        0,
        "Seconds between being told to stop and stopping, in which /readyz says no, so that a balancer sends nobody "
        "here any more; more than its checks take to notice",
        low=0,
        high=60,
    )
    reconnect_timeout_s: int = _key(
        30, "How long a page is kept for a browser that lost its connection, in seconds", low=3, high=600
    )


@dataclass
class DatabaseSettings:
    """Postgres. Its URL is a secret: LABLINK_DATABASE_URL; without it the embedded Postgres is used."""

    pool_size: int = _key(
        8,
        "Connections to Postgres at most; opened when needed, and kept. On the cores of the server itself, more of them"
        " make nothing faster and hold up the server",
        low=4,
        high=400,
    )
    statement_timeout_s: int = _key(30, "Longest statement, in seconds", low=1, high=600)


@dataclass
class AgentSettings:
    """What agents are told, and how long they may be silent."""

    heartbeat_interval_s: int = _key(20, "Seconds between heartbeats", low=1, high=300)
    # With the sweep that looks, pages say it within two intervals and a second.
    unreachable_after_s: int = _key(
        38, "Seconds of silence after which a VM is shown as unreachable", low=3, high=3_600
    )


@dataclass
class HealthSettings:
    """When a machine is not well. A pool may have figures of its own, under the same names."""

    disk_free_pct: float = _key(10.0, "Percent of the disk below which it is nearly full …", low=0, high=100)
    disk_free_gb: float = _key(10.0, "… if that is less than this too, in GB", low=0, high=100_000)
    memory_pct: float = _key(97.0, "Percent of the memory in use from which it is nearly used up", low=1, high=100)
    hot_c: float = _key(90.0, "Temperature from which a GPU is too hot, in °C", low=30, high=200)
    clock_skew_s: float = _key(30.0, "Seconds that a machine's clock may differ from ours", low=1, high=86_400)
    gpus: int = _key(0, "GPUs that each machine must have; 0: as many as it once had", low=0, high=64)
    settle_s: float = _key(60.0, "Seconds for which a condition must be gone before it is over", low=0, high=3_600)


@dataclass
class HealingSettings:
    """How machines are mended by themselves. A pool may have figures of its own, under the same names."""

    restart_s: float = _key(120.0, "Seconds for a restart of the workload to help; 0: not tried", low=0, high=7_200)
    reboot_s: float = _key(600.0, "Seconds for a reboot to help; 0: not tried", low=0, high=7_200)
    replace_s: float = _key(
        1_800.0, "Seconds for a new machine in place of it to be ready; 0: none is launched", low=0, high=86_400
    )
    after_s: float = _key(30.0, "Seconds a machine is failed before it is mended: it may come back", low=0, high=86_400)
    seat_grace_s: float = _key(
        900.0, "Seconds a machine with a seat may be silent before the seat moves; 0: never", low=0, high=604_800
    )
    at_once: float = _key(10.0, "Machines of a pool that are mended at once; 0: none", low=0, high=1_000)
    per_hour: float = _key(60.0, "Attempts in a pool within an hour", low=0, high=100_000)
    pause_s: float = _key(
        30.0, "Seconds between two attempts on one machine; doubled each time its last rung fails", low=0, high=86_400
    )
    memory_s: float = _key(
        3_600.0, "Seconds for which a mended machine that fails again goes on up the ladder", low=0, high=604_800
    )
    breaker_failures: float = _key(
        5.0, "Last rungs that fail alike, without a success, and healing stops", low=1, high=1_000
    )
    breaker_s: float = _key(
        600.0, "Seconds until one machine is tried again then; doubled each time it fails", low=1, high=86_400
    )


@dataclass
class AwsPoolSettings:
    """What a pool on AWS is made of."""

    instance_types: list[str] = field(
        default_factory=lambda: ["g4dn.xlarge"],
        metadata=_each("Instance types, the preferred one first", aws_forms.INSTANCE_TYPE),
    )
    zones: list[str] = field(
        default_factory=list,
        metadata=_each(
            "Availability zones, the preferred one first; without any, wherever a subnet is", aws_forms.ZONE
        ),
    )
    vpc_id: str | None = _key(None, "The VPC; without it, the region's default one", form=aws_forms.VPC)
    subnet_ids: list[str] = field(
        default_factory=list,
        metadata=_each("Subnets of that VPC in place of zones, the preferred one first", aws_forms.SUBNET),
    )
    ami: str = _key(
        "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
        "The AMI; looked up for a pool's first machine, and kept while it has any",
        form=aws_forms.AMI,
    )
    volume_gb: int = _key(100, "Size of the root volume, in GB", low=8, high=16_384)
    spot: bool = _key(False, "Whether machines are spot instances: cheaper, and AWS may take them away")
    image: str | None = _key(None, "The container image that researchers work in", form=aws_forms.IMAGE)
    ssh_cidrs: list[str] = field(
        default_factory=list, metadata=_each("Networks that may reach SSH; none by default", aws_forms.NETWORK)
    )
    ssh_key: bool = _key(False, "Whether an SSH key is made for the pool (kept in the data directory)")
    cost: str | None = _key(None, "What machines are booked on, a tag; default: the pool's name", form=aws_forms.TAG)


@dataclass
class PoolSettings:
    """The pool that the first start makes, and the values a new pool starts from."""

    provider: str = _key("local", "Who makes the VMs", choices=("local", "aws"))
    max: int = _key(100, "Most VMs at once", low=1, high=1_000)
    available_min: int = _key(0, "Free VMs to keep ready; 0 launches nothing by itself", low=0, high=1_000)
    price_per_hour: float = _key(0.0, "US dollars per VM and hour, for the costs shown", low=0, high=999)
    boot_deadline_s: int = _key(900, "Seconds a VM may take to become ready before it is failed", low=30, high=7_200)
    unreachable_grace_s: int = _key(
        600, "Seconds a free VM may be unreachable before it is failed", low=30, high=86_400
    )
    startup_script: str | None = _key(None, "A script (its text) that each VM runs once it boots")
    repository: str | None = _key(None, "A git repository that each VM clones, https://…")
    cleaning_script: str | None = _key(None, "A script (its text) that each VM runs between two people")
    cleaning_deadline_s: int = _key(
        300, "Seconds that cleaning between two people may take, the script included", low=30, high=7_200
    )
    check_command: str | None = _key(
        None, "A command that a rehearsal runs on each VM as a researcher would, such as nvidia-smi"
    )
    terminal: bool = _key(True, "Whether a seat offers a terminal in the browser")
    crd: bool = _key(False, "Whether a seat offers Chrome Remote Desktop")
    url_template: str | None = _key(None, "A link that a seat offers, with {hostname} and {email} filled in, https://…")
    claim_duration_s: int | None = _key(
        None, "Seconds after which a seat ends by itself, unless it is extended", low=60, high=31_536_000
    )
    idle_limit_s: int | None = _key(
        None, "Seconds without any use after which a seat ends by itself", low=60, high=31_536_000
    )
    aws: AwsPoolSettings = field(default_factory=AwsPoolSettings)


@dataclass
class PoolsSettings:
    """Pools by name."""

    default: PoolSettings = field(default_factory=PoolSettings)


@dataclass
class OidcSettings:
    """The organisation's sign-in (OpenID Connect). The client's secret: LABLINK_OIDC_CLIENT_SECRET."""

    issuer: str | None = _key(
        None,
        "The provider's issuer; without it there is no such sign-in",
        form=(
            r"https://[^\s?#]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^\s?#]*)?",
            "an https:// address without ? or #",
        ),
    )
    client_id: str | None = _key(None, "Our name with the provider", form=(r"\S{1,255}", "text without spaces"))
    scopes: str = _key(
        "openid email profile",
        "What is asked for; openid must be in it",
        form=(r"(\S+ )*openid( \S+)*", "words separated by spaces, openid among them"),
    )
    groups_claim: str = _key("groups", "The claim that holds a person's groups", form=(r"\S{1,255}", "a claim's name"))
    admin_groups: list[str] = field(default_factory=list, metadata=_each("Groups whose members are admins", _GROUP))
    operator_groups: list[str] = field(
        default_factory=list, metadata=_each("Groups whose members are operators", _GROUP)
    )
    viewer_groups: list[str] = field(default_factory=list, metadata=_each("Groups whose members are viewers", _GROUP))
    button: str = _key(
        "Sign in with your organisation", "The words on the button", form=(r".{1,60}", "1 to 60 letters")
    )


@dataclass
class AwsSettings:
    """The account that pools on AWS use. Credentials come as for every AWS tool: environment, profile or role."""

    region: str | None = _key(None, "The region; without it, pools cannot be on AWS", form=aws_forms.REGION)
    environment: str = _key(
        "dev", "Part of every name on AWS: three may share one account", choices=("dev", "test", "prod")
    )
    owner: str = _key("lablink", "Who answers for what we make; a tag", form=aws_forms.TAG)
    state_bucket: str | None = _key(
        None, "S3 bucket for the pools' Terraform states; without it, the data directory", form=aws_forms.BUCKET
    )
    permissions_boundary: str | None = _key(
        None,
        "The policy that bounds every role we make, where our own role demands one (terraform/allocator does)",
        form=aws_forms.POLICY,
    )
    attempts: int = _key(
        6, "How often Terraform asks AWS where it throttles or has no room; pauses double each time", low=1, high=25
    )
    endpoint_url: str | None = _key(
        None,
        "Another address of AWS, for trials with a local one",
        form=(r"https?://[^\s/]+", "an http:// or https:// address"),
    )


@dataclass
class TerraformSettings:
    """Terraform runs."""

    parallelism: int = _key(0, "Machines worked on at once; 0 follows the number of VMs", low=0, high=256)
    cancel_grace_s: int = _key(30, "Seconds between asking Terraform to stop and killing it", low=1, high=600)
    download: bool = _key(True, "Whether a missing Terraform is fetched (checksum verified) into the data directory")
    cli_config_file: str | None = _key(
        None,
        "Terraform's own configuration, such as one that names a mirror of its providers",
        form=(r"/.+", "an absolute path"),
    )


@dataclass
class JobsSettings:
    """Background jobs."""

    in_process: bool = _key(True, "Whether the server works on jobs itself; false leaves them to `lablink worker`")
    concurrency: int = _key(4, "Jobs worked on at once by one process", low=1, high=64)


@dataclass
class LiveSettings:
    """Open pages."""

    max_hz: float = _key(20.0, "Most updates per second that a page gets", low=0.5, high=60)
    backup_poll_s: float = _key(
        15.0, "Seconds after which everything is re-read even without a notice", low=1, high=300
    )


@dataclass
class RetentionSettings:
    """How much history is kept."""

    samples_hours: int = _key(24, "Hours of every machine's heartbeats, for charts", low=1, high=8_760)
    averages_days: int = _key(30, "Days of their averages of ten minutes", low=1, high=3_660)
    log_head_kb: int = _key(256, "KiB of the beginning of each source of a VM's log", low=1, high=1_000_000)
    log_tail_kb: int = _key(1_024, "KiB of its end", low=1, high=1_000_000)
    log_days: int = _key(
        30, "Days for which a VM's log outlives it, and Terraform's log its operation", low=1, high=36_500
    )
    events_days: int = _key(365, "Days of events", low=1, high=36_500)


@dataclass
class SchedulesSettings:
    """Classes by the clock."""

    default_lead_s: int = _key(
        600,
        "Seconds before a class at which its machines are launched, until three of the pool were measured",
        low=0,
        high=7_200,
    )


@dataclass
class RehearsalSettings:
    """Rehearsals of classes."""

    at_once: int = _key(3, "Most machines of a pool that robots hold at the same time", low=1, high=100)
    check_deadline_s: int = _key(60, "Seconds that a pool's check command may take", low=1, high=1_800)
    deadline_s: int = _key(
        3_600, "Seconds after which a rehearsal ends, with what is known by then", low=60, high=86_400
    )
    replay_most_s: int = _key(
        300, "Seconds into which the arrivals are pressed if they take longer; 0: never replayed", low=0, high=7_200
    )


_MAIL = (r"[^\s@<>,]{1,64}@[^\s@<>,]{1,190}", "an e-mail address")


@dataclass
class AlarmSettings:
    """When alarms ring, and where they are told. Secrets: LABLINK_WEBHOOK_URL, _WEBHOOK_SECRET, _SMTP_PASSWORD."""

    failed_after_s: int = _key(
        60, "Seconds a machine that nothing mends may be failed before that is an alarm", low=0, high=86_400
    )
    mending_after_s: int = _key(900, "The same for one that is being mended, or waits for its turn", low=0, high=86_400)
    line_people: int = _key(10, "People in a pool's line that are an alarm", low=1, high=10_000)
    line_wait_s: int = _key(600, "Seconds in line that are an alarm", low=1, high=86_400)
    disk_free_pct: int = _key(
        10, "Free space of the data directory's disk below which that is an alarm, in %", low=1, high=90
    )
    loop_lag_s: float = _key(1.0, "Seconds by which the server may be late, thrice in a minute", low=0.05, high=60)
    quiet_s: int = _key(60, "Seconds for which a cause must be gone before its alarm is resolved", low=0, high=3_600)
    email_to: list[str] = field(default_factory=list, metadata=_each("Who gets alarms by e-mail", _MAIL))
    email_from: str | None = _key(None, "The sender of those e-mails", form=_MAIL)
    smtp_host: str | None = _key(
        None, "The mail server; without it no e-mail is sent", form=(r"[^\s/]+", "a host name or an address")
    )
    smtp_port: int = _key(587, "The port of the mail server", low=1, high=65_535)
    smtp_security: str = _key(
        "starttls", "How the way there is encrypted; none only on this computer", choices=("starttls", "tls", "none")
    )
    smtp_user: str | None = _key(None, "Our name there, if it asks for one", form=(r"\S{1,255}", "text without spaces"))


@dataclass
class LogSettings:
    """The server's own log."""

    level: str = _key("info", "Least severity that is written", choices=("debug", "info", "warning", "error"))
    format: str = _key("text", "text for people, json for machines", choices=("text", "json"))


@dataclass
class OtelSettings:
    """Spans, for OpenTelemetry. What a collector asks for besides stands in OTEL_EXPORTER_OTLP_HEADERS."""

    endpoint: str | None = _key(
        None,
        "A collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; without it no spans are made",
        form=(r"https?://[^\s/?#@]+(/[^\s?#]*)?", "an http:// or https:// address"),
    )
    sample_pct: float = _key(100.0, "Percent of all traces that are sent", low=0, high=100)


@dataclass
class Keys:
    """All groups."""

    server: ServerSettings = field(default_factory=ServerSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    agent: AgentSettings = field(default_factory=AgentSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    healing: HealingSettings = field(default_factory=HealingSettings)
    pool: PoolsSettings = field(default_factory=PoolsSettings)
    terraform: TerraformSettings = field(default_factory=TerraformSettings)
    aws: AwsSettings = field(default_factory=AwsSettings)
    jobs: JobsSettings = field(default_factory=JobsSettings)
    oidc: OidcSettings = field(default_factory=OidcSettings)
    live: LiveSettings = field(default_factory=LiveSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    schedules: SchedulesSettings = field(default_factory=SchedulesSettings)
    rehearsals: RehearsalSettings = field(default_factory=RehearsalSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    log: LogSettings = field(default_factory=LogSettings)
    otel: OtelSettings = field(default_factory=OtelSettings)
