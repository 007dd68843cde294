"""Installs Apache Kafka for the driver tests: its jars from Maven Central into `.tools/kafka/lib`.

A broker is these jars and a Java 17 (or later); `kafka_servers` starts it.
"""

from __future__ import annotations

import shutil

from support.install_tools import TOOLS, need, run

__all__ = ["FOLDER", "kafka"]

FOLDER = TOOLS / "kafka"
_VERSION = "4.3.1"
_SLF4J = "1.7.36"
"""As the broker's own; without a backend it would log nothing, not even that it has started."""
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>meshnode.tests</groupId>
  <artifactId>kafka</artifactId>
  <version>{_VERSION}</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{_SLF4J}</version>
    </dependency>
  </dependencies>
</project>
"""


def kafka() -> None:
    """Does nothing when this version is there."""
    library = FOLDER / "lib"
    jars = (f"kafka_2.13-{_VERSION}.jar", f"slf4j-simple-{_SLF4J}.jar")
    if all((library / jar).exists() for jar in jars):
        return
    need("java")
    need("mvn")
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "pom.xml").write_text(_POM)
    # Into a folder beside it first: one that was left half filled would pass for installed.
    fresh = FOLDER / "lib.new"
    shutil.rmtree(fresh, ignore_errors=True)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
    run(["mvn", "-q", "-B", goal, f"-DoutputDirectory={fresh}", "-DincludeScope=runtime"], cwd=FOLDER)
    shutil.rmtree(library, ignore_errors=True)
    fresh.rename(library)
