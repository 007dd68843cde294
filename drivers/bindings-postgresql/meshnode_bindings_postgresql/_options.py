"""The metadata fields of `bindings.postgresql`, with Dapr's names and defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_bindings_postgresql._dsn import parse_dsn

__all__ = ["Options"]


def _unused(name: str, needed: str, *, secret: bool = False) -> Any:
    return option(name, f"No effect: it goes with `{needed}`, which is refused.", default="", secret=secret)


@final
@frozen
class Options:
    """Metadata of `bindings.postgresql`."""

    connection_string: str = option(
        "connectionString",
        "`postgres://user:password@host:5432/database?sslmode=verify-ca`, or the same as words "
        "`host=… user=… password=…`; `pool_max_conns` and its like are understood.",
        secret=True,
        aliases=("url",),
    )
    timeout: timedelta = option(
        "timeout",
        "How long the first connection may take, and later ones unless the connection string says otherwise.",
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
    aws_region: str = _unused("awsRegion", "useAWSIAM")
    aws_access_key: str = _unused("awsAccessKey", "useAWSIAM", secret=True)
    aws_secret_key: str = _unused("awsSecretKey", "useAWSIAM", secret=True)
    aws_session_token: str = _unused("awsSessionToken", "useAWSIAM", secret=True)
    assume_role_arn: str = _unused("assumeRoleArn", "useAWSIAM")
    assume_role_session_name: str = _unused("assumeRoleSessionName", "useAWSIAM")

    def __attrs_post_init__(self) -> None:
        problems = [
            Problem(
                "is not offered by this driver",
                field=name,
                remedy="use a user and password, or a certificate, in connectionString",
            )
            for name, wanted in (("useAzureAD", self.use_azure_ad), ("useAWSIAM", self.use_aws_iam))
            if wanted
        ]
        if self.timeout <= timedelta(0):
            problems.append(Problem("must be above 0", field="timeout"))
        if self.connection_max_idle_time < timedelta(0):
            problems.append(Problem("must not be negative", field="connectionMaxIdleTime"))
        if problems:
            raise ConfigError(problems)
        parse_dsn(self.connection_string)
