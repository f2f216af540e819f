"""The one door for settings: every address, path, port and limit, typed, with defaults for a laptop.

Values come, later ones winning, from the defaults below, from ``<state_dir>/stack.env`` (the port block that
``genres up`` chose for this folder), from ``.env`` in `PROJECT_DIR` and from ``GENRES_*`` environment variables.
Nothing else in the project reads the environment.
"""

import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from genres.errors import GenresError

_CODE_DIR = Path(__file__).resolve().parent.parent

CHECKOUT: Path | None = _CODE_DIR if (_CODE_DIR / "workspace.yaml").is_file() else None
"""The checkout that this code runs from; None where it is installed from a wheel."""

# Not Path.home(), which raises where a container's user has no home.
PROJECT_DIR = CHECKOUT or Path(os.path.expanduser("~/.genres"))  # noqa: PTH111
"""Where ``.env`` is, and where processes are started: the checkout, or ``~/.genres`` for an installed wheel."""

PORT_BLOCK = 100
"""Ports a stack may use, from ``port_base`` on."""


class Ports(NamedTuple):
    """The embedded stack's ports. Each ends like the service's customary port (8020, 9870, 9092, 4040 …)."""

    namenode: int
    namenode_http: int
    datanode: int
    datanode_http: int
    datanode_ipc: int
    kafka: int
    kafka_controller: int
    spark_connect: int
    spark_ui: int
    spark_own_ui: int
    """What ``spark_ui`` shows, for who has the stack's token."""
    mlflow: int
    dagster: int
    page: int

    @classmethod
    def from_base(cls, base: int) -> Self:
        """Lay the services out in the block that begins at `base`."""
        return cls(
            namenode=base + 20,
            namenode_http=base + 70,
            datanode=base + 66,
            datanode_http=base + 64,
            datanode_ipc=base + 67,
            kafka=base + 92,
            kafka_controller=base + 93,
            spark_connect=base + 2,
            spark_ui=base + 40,
            spark_own_ui=base + 41,
            mlflow=base + 50,
            dagster=base + 30,
            page=base + 60,
        )


_ID = r"^([a-z0-9][a-z0-9_]{0,39})?$"
_TOPIC = r"^[A-Za-z0-9_-]{1,200}$"
_KEPT_IN_STATE_DIR = {
    *("code", "dagster", "drop", "hdfs", "kafka", "logs", "mlflow", "reports", "spark", "supervisor"),
    *("synthetic_audio", "stack.env", ".env", "genres.db", "genres.db-shm", "genres.db-wal"),
}
_CERTIFICATE_FILES = ("ca_file", "kafka_ca_file", "kafka_cert_file", "kafka_key_file")


def _absolute(path: Any) -> Path:
    """Return a path that means the same in every working folder.

    Of a link to itself, or of a user that is not known, it is one that does not exist; `Path` raises for these.
    """
    return Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111


def require_local(name: str, value: Any) -> None:
    """Refuse a URL where files are read, written or watched by the system's own calls.

    Raises
    ------
    ValueError
        Names what has that value.
    """
    if "://" in str(value or ""):
        raise ValueError(
            f"{name}={value} is a URL, and only a path of this machine serves there: name a folder or file here, such "
            "as one where the share is mounted"
        )


class StreamSettings(BaseModel):
    """One stream: a topic, the folder that is sent to it, and the dataset whose champion scores it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^([a-z][a-z0-9_]{0,39})?$",
        description="Stands before the names of its assets, sensors and jobs; empty for the default stream alone.",
    )
    topic: str = Field(pattern=_TOPIC, description="Kafka topic of the clips.")
    watch_folder: Path = Field(description="Folder that clips are dropped in; an absolute path.")
    dataset: str = Field(
        "",
        pattern=_ID,
        description="Whose champion scores the stream; empty: that of dataset, else of audio, else of the current one.",
    )

    @field_validator("watch_folder", mode="before")
    @classmethod
    def _is_local(cls, value: Any) -> Any:
        require_local("GENRES_MORE_STREAMS: watch_folder", value)
        return value

    @field_validator("watch_folder")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not os.path.isabs(os.path.expanduser(value)):  # noqa: PTH111, PTH117
            raise ValueError(f"watch_folder {str(value)!r} is not an absolute path")
        return _absolute(value)


class _NoProxy(BaseSettings):
    """What the user keeps away from proxies, by the names that HTTP and gRPC clients read."""

    model_config = SettingsConfigDict(case_sensitive=True, extra="ignore")

    lower: str = Field("", validation_alias="no_proxy")
    upper: str = Field("", validation_alias="NO_PROXY")
    grpc: str = Field("", validation_alias="no_grpc_proxy")


class _SparkClient(BaseSettings):
    """What pyspark reads by itself."""

    model_config = SettingsConfigDict(case_sensitive=True, extra="ignore", hide_input_in_errors=True)

    token: SecretStr | None = Field(None, validation_alias="SPARK_CONNECT_AUTHENTICATE_TOKEN")


class _MlflowClient(BaseSettings):
    """How patient MLflow's client is, by its own variables.

    By itself it asks a server that answers 500 again for four minutes, and waits two for an answer that does not come.
    With these it is less than a minute, after which Dagster ends a sensor's tick.
    """

    model_config = SettingsConfigDict(case_sensitive=True, extra="ignore")

    retries: str = Field("2", validation_alias="MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    timeout_s: str = Field("15", validation_alias="MLFLOW_HTTP_REQUEST_TIMEOUT")


class Settings(BaseSettings):
    """Everything that differs between a laptop and a cluster.

    An address left empty means the embedded service; once it is set, ``genres up`` no longer starts that
    service and everything talks to the address instead.
    """

    model_config = SettingsConfigDict(
        env_prefix="GENRES_",
        env_file=PROJECT_DIR / ".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # which would be all values, the secret ones too
    )

    state_dir: Path = Field(
        CHECKOUT / ".genres" if CHECKOUT else PROJECT_DIR,
        description="Data, logs and sockets of the embedded stack; DAGSTER_HOME.",
    )
    cache_dir: Path = Field(
        # Not Path.home(), as above.
        Path(os.path.expanduser("~/.cache/genres")),  # noqa: PTH111
        description="What is fetched or compiled once for all checkouts: the network of musicnn, and the loops of "
        "workers that get the code as a zip.",
    )
    jar_dir: Path | None = Field(
        None,
        description="Local Maven repository that the daemons' jars are fetched to; empty: the user's own, "
        "~/.m2/repository.",
    )
    jdk_dir: Path | None = Field(
        None, description="Where a Java is kept that had to be downloaded; empty: the user's own cache, ~/.cache/cjdk."
    )
    min_free_mib: int = Field(
        1024,
        ge=0,
        description="What has to be free before a start on the disks of state_dir and jar_dir, and on that of jdk_dir "
        "where a Java has to be downloaded to it, in MiB.",
    )
    port_base: int = Field(18000, ge=1024, le=65400, description="First port of the embedded stack's block.")
    start_timeout_s: float = Field(120, gt=0, description="How long one service may take to become healthy.")

    hdfs_url: str = Field("", description="hdfs://host:port of the NameNode.")
    webhdfs_url: str = Field("", description="http://host:port of the NameNode's WebHDFS.")
    hdfs_user: str = Field("genres", description="User name sent to HDFS (simple authentication).")
    ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that sign the certificates of https:// addresses (WebHDFS, MLflow); "
        "empty: those that certifi lists.",
    )
    lake_path: str = Field("/genres", pattern=r"^/[\w./-]*$", description="The lake's folder on HDFS.")
    kafka_bootstrap_servers: str = Field(
        "", description="host:port[,host:port…] of the brokers; one that answers is enough."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="What the brokers' listener speaks."
    )
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "", description="How a SASL_ protocol makes sure of the user."
    )
    kafka_username: str = Field("", description="User of PLAIN and SCRAM.")
    kafka_password: SecretStr = Field(SecretStr(""), description="The user's password.")
    kafka_oauth_token: str = Field(
        "",
        pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$",
        description="module:function that returns a token for OAUTHBEARER; called for each connection.",
    )
    kafka_ca_file: Path | None = Field(
        None, description="PEM file of the authorities that sign the brokers' certificates; empty: the system's."
    )
    kafka_check_hostname: bool = Field(True, description="Whether a broker's certificate must name its host.")
    kafka_cert_file: Path | None = Field(
        None, description="PEM file of our own certificate, where brokers ask for one."
    )
    kafka_key_file: Path | None = Field(
        None, description="PEM file of its private key; empty: it is in kafka_cert_file."
    )
    kafka_key_password: SecretStr = Field(SecretStr(""), description="What the private key is encrypted with.")
    kafka_answer_s: float = Field(
        3.0,
        gt=0,
        description="How long each of several brokers may take at least to let a client in, in seconds: more, where "
        "they ask a slow directory or identity provider first.",
    )
    spark_remote: str = Field(
        "",
        repr=False,  # it may hold a token
        description="sc://host:port of the Spark Connect server; with a token, sc://host:port/;token=….",
    )
    spark_driver_memory: str = Field("1g", pattern=r"^\d+[gm]$", description="Heap of the Spark Connect server.")
    mlflow_tracking_uri: str = Field("", description="http://host:port of the MLflow server.")
    database_url: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL: sqlite:///… or postgresql+psycopg://….")
    dagster_database_url: SecretStr = Field(
        SecretStr(""),
        description="postgresql://… for Dagster's runs, events and schedules; empty: SQLite below state_dir.",
    )
    mlflow_database_url: SecretStr = Field(
        SecretStr(""),
        description="SQLAlchemy URL for the tables of the embedded MLflow server; empty: SQLite below state_dir.",
    )

    audio: Path | None = Field(
        None, description="Folder of labelled audio, <genre>/<track>.wav; empty: synthetic clips."
    )
    dataset: str = Field(
        "", pattern=_ID, description="Dataset id; empty: that of the folder audio, else the current one."
    )
    feature_sets: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9_]{0,39}(,[a-z0-9][a-z0-9_]{0,39})*)?$",
        description="Feature sets of newly loaded datasets, separated by commas: what is computed for a clip and what "
        "models are trained on; empty: all that are installed and that no other one contains.",
    )
    feature_set: str = Field("", description="The older name of feature_sets, which goes first.")
    synthetic_clips_per_genre: int = Field(20, ge=3, description="Clips of each genre in the synthetic dataset.")
    synthetic_clip_s: float = Field(30.0, gt=0.5, description="Length of a synthetic clip, in seconds.")
    upload_threads: int = Field(8, ge=1, description="Clips uploaded to HDFS at a time.")
    max_clip_s: float = Field(
        900.0,
        gt=0,
        description="Longest clip the audio gate lets in, in seconds; a worker takes half a megabyte for each.",
    )

    classifiers: str = Field(
        "",
        pattern=r"^(\w+(,\w+)*)?$",
        description="Candidates to train, separated by commas; empty: three that are worth it.",
    )
    certain_accuracy: float = Field(
        0.8,
        gt=0,
        le=1,
        description="How often answers have to be right that do not count as uncertain; a model's threshold is chosen "
        "for it when it is calibrated.",
    )

    topic: str = Field("audio_clips", pattern=_TOPIC, description="Kafka topic of the default stream's clips.")
    topic_partitions: int = Field(3, ge=1, description="Partitions of the topic; more can be added later.")
    topic_replication: int = Field(
        0,
        ge=0,
        le=2**15 - 1,
        description="Replicas that the topic is made with, each on another broker; 0: the broker's default.",
    )
    topic_retention_h: int = Field(168, ge=1, description="How long Kafka keeps a clip, in hours.")
    inline_limit_bytes: int = Field(
        8 * 2**20, ge=1, le=64 * 2**20, description="Largest clip sent in a message; larger ones go by HDFS."
    )
    watch_folder: Path = Field(
        default_factory=lambda values: values["state_dir"] / "drop",
        description="Folder that clips are dropped in; empty: drop in state_dir.",
    )
    settle_s: float = Field(0.3, gt=0, description="How long a dropped file must be unchanged, in seconds.")

    max_clips_per_batch: int = Field(2048, ge=1, le=10_000, description="Most clips of one streaming batch.")
    batch_s: float = Field(
        2.0, gt=0, description="How long a streaming batch is meant to take, in seconds, where as many clips wait."
    )
    drains: int = Field(
        1, ge=1, description="Streaming runs that drain a topic at the same time, each its share of the partitions."
    )
    drain_quiet_s: float = Field(
        5.0, ge=0, description="A streaming run ends when nothing came for so long, in seconds."
    )
    max_run_s: float = Field(600.0, gt=0, description="A streaming run takes no next batch when it is this old.")
    range_grace_s: float = Field(
        60.0, gt=0, description="A planned batch without a sign of life for so long is tried again."
    )
    clip_limit_s: float = Field(60.0, gt=0, description="How long a worker may compute with one clip, in seconds.")
    range_limit_s: float = Field(
        600.0,
        gt=0,
        description="How long Spark may work on a batch of clips without progress before it counts as stuck.",
    )
    keep_partitions: int = Field(2000, ge=100, description="Streaming partitions that Dagster shows; older ones go.")
    keep_features_days: float = Field(
        0.0,
        ge=0,
        description="For how long the stream's features are kept, in days from their range's commit; 0: for ever.",
    )
    keep_runs: int = Field(2000, ge=100, description="Runs that are over and that Dagster remembers; older ones go.")
    keep_runs_days: float = Field(14.0, gt=0, description="For how long Dagster remembers runs that are over, in days.")
    sweep_grace_h: float = Field(
        24.0, ge=1, description="Nothing that is younger is swept, in hours: longer than any run works on one thing."
    )
    compact_after_h: float = Field(
        24.0,
        ge=0,
        description="When a day (UTC) has been over for so long, in hours, its small files of stream features are "
        "merged into larger ones.",
    )
    compact_memory_mib: int = Field(
        64, ge=1, description="How much of the features merging holds in memory at a time, in MiB."
    )
    lease_s: float = Field(30.0, gt=0, description="How long a draining run holds its partitions without renewing.")
    stream_dataset: str = Field(
        "",
        pattern=_ID,
        description="Whose champion scores the default stream; empty: that of dataset, else of audio, else of the "
        "current one.",
    )
    alert_urls: SecretStr = Field(
        SecretStr(""),
        description="Where people are told of failed runs and checks: Apprise's addresses (mailto://…, slack://…, "
        "json://…), separated by commas; empty: nowhere.",
    )
    more_streams: tuple[StreamSettings, ...] = Field(
        (),
        description="Streams beside the default one, as JSON: "
        '[{"name": "radio", "topic": "radio_clips", "watch_folder": "/srv/radio", "dataset": "gtzan"}].',
    )

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("feature_set") and not values.get("feature_sets"):
            values["feature_sets"] = values["feature_set"]
        return values

    @model_validator(mode="before")
    @classmethod
    def _absolute_paths(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Dagster's step processes have other working folders; a relative path must mean the same in all.
        for name in ("state_dir", "cache_dir", "jar_dir", "jdk_dir", "audio", "watch_folder", *_CERTIFICATE_FILES):
            require_local(f"GENRES_{name.upper()}", values.get(name))
            if values.get(name):
                values[name] = _absolute(values[name])
            else:
                values.pop(name, None)
        return values

    @property
    def path_variables(self) -> dict[str, str]:
        """The variables that make these settings' paths mean the same in a process with another working folder."""
        names = ("state_dir", "jar_dir", "jdk_dir", "audio", "watch_folder", *_CERTIFICATE_FILES)
        paths = {name: getattr(self, name) for name in names}
        if "cache_dir" in self.model_fields_set:  # by default it is the same everywhere
            paths["cache_dir"] = self.cache_dir
        return {f"GENRES_{name.upper()}": str(path) for name, path in paths.items() if path is not None}

    def make_state_dir(self) -> None:
        """Make the state folder if it is not there, for its user alone: tables, sounds and addresses lie in it.

        One that others may read is closed to them, if it is this user's and holds nothing but what we keep there.
        """
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = self.state_dir.stat()
        is_open = about.st_mode & 0o077 and about.st_uid == os.getuid()
        if is_open and {path.name for path in self.state_dir.iterdir()} <= _KEPT_IN_STATE_DIR:
            self.state_dir.chmod(about.st_mode & 0o7700)

    @property
    def no_proxy_variables(self) -> dict[str, str]:
        """The variables that keep loopback and every service's address away from proxies.

        What the user keeps away from them stays so.
        """
        theirs = _NoProxy()
        addresses = [self.hdfs, self.webhdfs, *self.bootstrap_servers.split(","), self.remote, self.tracking_uri]
        ours = ["localhost", "127.0.0.1", "::1"]
        for address in addresses:
            with suppress(ValueError):  # malformed ones are refused where they are used
                ours.append(urlsplit(address if "://" in address else f"//{address.strip()}").hostname or "")

        def extended(*values: str) -> str:
            entries = [entry.strip() for value in values for entry in value.split(",")]
            return ",".join(dict.fromkeys(filter(None, [*entries, *ours])))

        # A lone star keeps everything away from proxies, but means nothing in a list.
        http = "*" if "*" in (theirs.lower.strip(), theirs.upper.strip()) else extended(theirs.lower, theirs.upper)
        return {
            "no_proxy": http,
            "NO_PROXY": http,
            "no_grpc_proxy": extended(theirs.grpc, theirs.lower, theirs.upper),
        }

    @property
    def client_variables(self) -> dict[str, str]:
        """The variables by which libraries learn what is said here: MLflow's client, of patience and `ca_file`."""
        patience = _MlflowClient()
        certificates = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.ca_file)} if self.ca_file else {}
        return {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": patience.retries,
            "MLFLOW_HTTP_REQUEST_TIMEOUT": patience.timeout_s,
            **certificates,
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add ``<state_dir>/stack.env``, whose place depends on the other sources, as the weakest one."""
        named = {**dotenv_settings(), **env_settings(), **init_settings()}
        state_dir = Path(named.get("state_dir") or cls.model_fields["state_dir"].default)
        stack_env = DotEnvSettingsSource(settings_cls, env_file=state_dir / "stack.env")
        return init_settings, env_settings, dotenv_settings, stack_env

    @property
    def ports(self) -> Ports:
        """The embedded stack's ports."""
        return Ports.from_base(self.port_base)

    @cached_property
    def embedded(self) -> frozenset[str]:
        """The services that this project starts itself, because no address was set for them."""
        addresses = {
            "hdfs": self.hdfs_url,
            "kafka": self.kafka_bootstrap_servers,
            "spark": self.spark_remote,
            "mlflow": self.mlflow_tracking_uri,
        }
        return frozenset(name for name, address in addresses.items() if not address)

    @property
    def hdfs(self) -> str:
        """``hdfs://host:port`` of the NameNode."""
        return self.hdfs_url or f"hdfs://127.0.0.1:{self.ports.namenode}"

    @property
    def webhdfs(self) -> str:
        """``http://host:port`` of the NameNode's WebHDFS."""
        return self.webhdfs_url or f"http://127.0.0.1:{self.ports.namenode_http}"

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's bootstrap servers, ``host:port`` separated by commas."""
        return self.kafka_bootstrap_servers or f"127.0.0.1:{self.ports.kafka}"

    @property
    def remote(self) -> str:
        """``sc://host:port`` of the Spark Connect server."""
        return self.spark_remote or f"sc://127.0.0.1:{self.ports.spark_connect}"

    @property
    def has_spark_token(self) -> bool:
        """Whether pyspark finds a token in the environment, which it sends to any server."""
        return _SparkClient().token is not None

    @property
    def spark_uses_tls(self) -> bool:
        """Whether pyspark speaks TLS to the Connect server: where it is told to, and wherever there is a token."""
        parameters = dict(one.partition("=")[::2] for one in self.remote.partition("/;")[2].split(";"))
        return parameters.get("use_ssl", "").lower() == "true" or "token" in parameters or self.has_spark_token

    @property
    def tracking_uri(self) -> str:
        """``http://host:port`` of the MLflow server."""
        return self.mlflow_tracking_uri or f"http://127.0.0.1:{self.ports.mlflow}"

    @property
    def streams(self) -> tuple[StreamSettings, ...]:
        """Every stream, the default one first."""
        default = StreamSettings(name="", topic=self.topic, watch_folder=self.watch_folder, dataset=self.stream_dataset)
        return (default, *self.more_streams)

    def scored_by(self, stream: StreamSettings) -> dict[str, Any]:
        """Return what says which dataset's champion scores a stream, for `genres.store.ledger.dataset_meant`."""
        return self.meaning(stream.dataset)

    def meaning(self, dataset: str = "") -> dict[str, Any]:
        """Return what says which dataset is meant where `dataset` is named, for `genres.store.ledger.dataset_meant`."""
        return {"dataset": dataset or self.dataset, "folder": self.audio}

    def stream(self, name: str) -> StreamSettings:
        """Return the stream of this name.

        Raises
        ------
        GenresError
            If there is none.
        """
        for stream in self.streams:
            if stream.name == name:
                return stream
        known = ", ".join(stream.name for stream in self.more_streams) or "none beside the default one"
        raise GenresError(f"there is no stream '{name}' (known: {known}): name one, or add it to GENRES_MORE_STREAMS")

    @property
    def dagster_url(self) -> str:
        """Address of the Dagster UI that ``make ui`` opens."""
        return f"http://127.0.0.1:{self.ports.dagster}"

    @property
    def page_url(self) -> str:
        """Address of the page to listen on, which ``make ui`` opens too."""
        return f"http://127.0.0.1:{self.ports.page}"

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the prediction tables and the ledger, with its password if it has one."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.state_dir / 'genres.db'}"

    @property
    def mlflow_database(self) -> str:
        """SQLAlchemy URL of the embedded MLflow server's tables, with its password if it has one."""
        return self.mlflow_database_url.get_secret_value() or f"sqlite:///{self.state_dir / 'mlflow' / 'mlflow.db'}"

    @property
    def dagster_database(self) -> str:
        """URL of Dagster's runs, events and schedules, with its password; empty for SQLite in `dagster_home`."""
        scheme, found, rest = self.dagster_database_url.get_secret_value().partition("://")
        # Dagster's storage speaks to psycopg2 alone, and SQLAlchemy takes psycopg 3 where no driver is named.
        return f"{scheme.partition('+')[0]}+psycopg2://{rest}" if found else ""

    @property
    def dagster_home(self) -> Path:
        """Where Dagster keeps its instance; the project's ``dagster.yaml`` is written there."""
        return self.state_dir / "dagster"

    @property
    def reports_dir(self) -> Path:
        """Where the asset ``dataset_report`` writes each dataset's page."""
        return self.state_dir / "reports"

    @field_validator("dagster_database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr) -> SecretStr:
        # Not quoted: it may hold a password.
        if (url := value.get_secret_value()) and not url.startswith(("postgresql://", "postgresql+psycopg")):
            raise ValueError("write postgresql://<user>@<host>/<database>, or leave it empty for SQLite")
        return value

    @model_validator(mode="after")
    def _streams_are_apart(self) -> Self:
        for what in ("name", "topic", "watch_folder"):
            values = [getattr(stream, what) for stream in self.streams]
            if twice := sorted({str(value) for value in values if values.count(value) > 1}):
                raise ValueError(
                    f"GENRES_MORE_STREAMS: two streams have the {what} {twice[0]!r}; let each have its own"
                )
        return self

    @model_validator(mode="after")
    def _a_clip_ends_before_its_range(self) -> Self:
        if self.clip_limit_s >= self.range_limit_s:
            raise ValueError(
                f"GENRES_CLIP_LIMIT_S={self.clip_limit_s:g} is not below GENRES_RANGE_LIMIT_S={self.range_limit_s:g}: "
                "a clip that hangs has to be ended before its whole batch is; raise the second or lower the first"
            )
        return self

    @model_validator(mode="after")
    def _hdfs_addresses_come_together(self) -> Self:
        if bool(self.hdfs_url) != bool(self.webhdfs_url):
            raise ValueError(
                "GENRES_HDFS_URL and GENRES_WEBHDFS_URL belong together (Spark uses the first, Python the second): "
                "set both"
            )
        return self

    @model_validator(mode="after")
    def _kafka_can_be_reached_as_it_is_said(self) -> Self:
        protocol, mechanism = self.kafka_security_protocol, self.kafka_sasl_mechanism
        if protocol != "PLAINTEXT" and not self.kafka_bootstrap_servers:
            raise ValueError(
                f"GENRES_KAFKA_SECURITY_PROTOCOL = {protocol} is for brokers of your own, the embedded one is plain: "
                "set GENRES_KAFKA_BOOTSTRAP_SERVERS too"
            )
        if protocol.startswith("SASL_"):
            if not mechanism:
                raise ValueError(
                    f"GENRES_KAFKA_SECURITY_PROTOCOL = {protocol} needs GENRES_KAFKA_SASL_MECHANISM: PLAIN, "
                    "SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
                )
            is_token = mechanism == "OAUTHBEARER"
            needed = ("kafka_oauth_token",) if is_token else ("kafka_username", "kafka_password")
            if lacking := [f"GENRES_{name.upper()}" for name in needed if not getattr(self, name)]:
                raise ValueError(f"GENRES_KAFKA_SASL_MECHANISM = {mechanism} needs {' and '.join(lacking)} too")
        if self.kafka_key_file and not self.kafka_cert_file:
            raise ValueError("GENRES_KAFKA_KEY_FILE is the key of a certificate: set GENRES_KAFKA_CERT_FILE too")
        return self
