"""Secret stores without a server: environment variables, and a JSON file.

Imports meshnode.interfaces and meshnode.errors only.
"""

from meshnode_secretstores_local._env import EnvOptions, EnvSecrets, env_driver
from meshnode_secretstores_local._file import FileOptions, FileSecrets, file_driver

__all__ = ["EnvOptions", "EnvSecrets", "FileOptions", "FileSecrets", "env_driver", "file_driver"]
