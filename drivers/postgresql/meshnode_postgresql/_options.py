"""The metadata fields that say where PostgreSQL is and how to talk to it, with Dapr's names and defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_postgresql._dsn import Dsn, parse_dsn

__all__ = ["ConnectionOptions"]


def _unused(name: str, needed: str, *, secret: bool = False, aliases: tuple[str, ...] = ()) -> Any:
    doc = f"No effect: it goes with `{needed}`, which is refused."
    return option(name, doc, default="", secret=secret, aliases=aliases)


@frozen
class ConnectionOptions:
    """What every component type on PostgreSQL has in its metadata.

    The one class here that others inherit from: a component's metadata is one flat table, so what the types
    have in common cannot be a field of each.
    """

    connection_string: str = option(
        "connectionString",
        "`postgres://user:password@host:5432/database?sslmode=verify-ca`, or the same as words "
        "`host=… user=… password=…`; `pool_max_conns` and its like are understood.",
        default="",
        secret=True,
        aliases=("url",),
    )
    host: str = option("host", "In place of the connection string's; so are the next six.", default="")
    hostaddr: str = option("hostaddr", "Address, so that `host` need not be looked up.", default="")
    port: str = option("port", "Port.", default="")
    database: str = option("database", "Database.", default="")
    user: str = option("user", "User.", default="")
    password: str = option("password", "Password.", default="", secret=True)
    ssl_root_cert: str = option("sslRootCert", "Path of the authorities' certificates.", default="")
    timeout: timedelta = option(
        "timeout",
        "How long one operation may take, and a connection unless the connection string says otherwise.",
        default=timedelta(seconds=20),
        aliases=("timeoutInSeconds",),
    )
    max_conns: int = option(
        "maxConns", "Connections at most; 1 or less: the connection string's, else 4.", default=0
    )
    connection_max_idle_time: timedelta = option(
        "connectionMaxIdleTime",
        "After how long an unused connection is closed; 0: the connection string's, else 30m.",
        default=timedelta(0),
    )
    query_exec_mode: str = option(
        "queryExecMode",
        "No effect: nothing is prepared beforehand, which suits PgBouncer as well.",
        default="",
        allowed=("", "cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"),
    )
    use_azure_ad: bool = option("useAzureAD", "Not offered; only `false` is accepted.", default=False)
    use_aws_iam: bool = option("useAWSIAM", "Not offered; only `false` is accepted.", default=False)
    azure_tenant_id: str = _unused("azureTenantId", "useAzureAD")
    azure_client_id: str = _unused("azureClientId", "useAzureAD")
    azure_client_secret: str = _unused("azureClientSecret", "useAzureAD", secret=True)
    azure_environment: str = _unused("azureEnvironment", "useAzureAD")
    aws_region: str = _unused("awsRegion", "useAWSIAM", aliases=("region",))
    aws_access_key: str = _unused("awsAccessKey", "useAWSIAM", secret=True, aliases=("accessKey",))
    aws_secret_key: str = _unused("awsSecretKey", "useAWSIAM", secret=True, aliases=("secretKey",))
    aws_session_token: str = _unused("awsSessionToken", "useAWSIAM", secret=True, aliases=("sessionToken",))
    assume_role_arn: str = _unused("assumeRoleArn", "useAWSIAM")
    assume_role_session_name: str = _unused("assumeRoleSessionName", "useAWSIAM")

    def __attrs_post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ConfigError(problems)
        self.dsn()

    def problems(self) -> list[Problem]:
        """What cannot be used; a subclass adds its own."""
        found = [
            Problem(
                "is not offered by this driver",
                field=name,
                remedy="use a user and password, or a certificate, in connectionString",
            )
            for name, wanted in (("useAzureAD", self.use_azure_ad), ("useAWSIAM", self.use_aws_iam))
            if wanted
        ]
        if self.timeout <= timedelta(0):
            found.append(Problem("must be above 0", field="timeout"))
        if self.connection_max_idle_time < timedelta(0):
            found.append(Problem("must not be negative", field="connectionMaxIdleTime"))
        return found

    def dsn(self) -> Dsn:
        """Raises `ConfigError`."""
        given = {
            "host": self.host,
            "hostaddr": self.hostaddr,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
            "sslrootcert": self.ssl_root_cert,
        }
        return parse_dsn(self.connection_string, {name: value for name, value in given.items() if value})
