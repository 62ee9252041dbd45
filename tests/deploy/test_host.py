"""The host's own script, with stand-ins for Docker and the AWS CLI that write down what they are asked."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from backend.keys import KeyRing

SCRIPT = Path(__file__).parents[2] / "terraform/allocator/host/lablink-host"
AWS = """#!/bin/sh
echo "aws $*" >> {log}
case "$1 $2" in
    'ssm get-parameter') cat {here}/parameter ;;
    'secretsmanager get-secret-value')
        case "$*" in *lablink-database-*) echo of-rds; exit ;; esac
        if [ -e {here}/secret ]; then cat {here}/secret; exit; fi
        echo 'An error occurred (ResourceNotFoundException)' >&2
        exit 254 ;;
    'secretsmanager put-secret-value') cat > {here}/secret ;;
    's3 cp') case "$4" in s3://*) echo backup > "$5" ;; esac ;;
esac
"""
DOCKER = """#!/bin/sh
echo "docker $* ($LABLINK_IMAGE)" >> {log}
[ ! -e {here}/fail ] || case "$*" in *"$(cat {here}/fail)"*) exit 1 ;; esac
case "$*" in *pg_dump*) echo dump ;; *tar*-cz*) echo data ;; esac
"""


class Host:
    """A host's file system, and what its programs were asked."""

    def __init__(self, here: Path) -> None:
        self.here, self.etc, self._log = here, here / "etc", here / "log"
        self.etc.mkdir()
        (self.etc / "Caddyfile").touch()
        (self.etc / "host.env").write_text(
            "AWS_REGION=us-east-1\nLABLINK_DOMAIN=lab.example.org\nLABLINK_PARAMETER=/lablink/dev/run\n"
            "LABLINK_SECRET=lablink-allocator-dev\nLABLINK_DATABASE_SECRET=lablink-database-dev\nLABLINK_BUCKET=backups\n"
        )
        for name, text in (("aws", AWS), ("docker", DOCKER), ("chown", "#!/bin/sh\n")):
            program = here / name
            program.write_text(text.format(log=self._log, here=here) if "{" in text else text)
            program.chmod(0o755)
        self.shall_run("1.0.0")

    def shall_run(self, tag: str, *, database_host: str = "", **settings: str) -> None:
        wanted = {"image": f"ghcr.io/x/y:{tag}", "database_host": database_host, "settings": settings}
        (self.here / "parameter").write_text(json.dumps(wanted))

    def run(self, *arguments: str) -> list[str]:
        """What it asked of the others, a line each.

        Raises:
            subprocess.CalledProcessError
        """
        self._log.write_text("")
        environment = {"PATH": f"{self.here}:{os.environ['PATH']}", "LABLINK_ETC": str(self.etc)}
        subprocess.run([SCRIPT, *arguments], env=environment, check=True, capture_output=True, text=True)
        return self._log.read_text().splitlines()

    def secret(self, name: str) -> str:
        file = self.etc / "secrets" / name
        assert file.stat().st_mode & 0o777 == 0o400
        return file.read_text()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_first_start_makes_keys_and_passwords_that_the_server_takes(host: Host) -> None:
    asked = host.run("follow")
    kept = json.loads((host.here / "secret").read_text())
    assert KeyRing([kept["keys"]]).unseal(KeyRing([kept["keys"]]).seal("x")) == "x"
    assert host.secret("keys") == kept["keys"]
    password = host.secret("database_password")
    assert host.secret("database_url") == f"postgresql://lablink:{password}@127.0.0.1:5432/lablink?sslmode=disable"
    # A command line can be read by every process of the host.
    assert not [line for line in asked for secret in kept.values() if secret in line]
    assert any(" up " in line and "(ghcr.io/x/y:1.0.0)" in line for line in asked)


def test_a_second_host_finds_the_keys_of_the_first(host: Host, tmp_path: Path) -> None:
    host.run("follow")
    kept = (host.here / "secret").read_text()
    (tmp_path / "second").mkdir()
    second = Host(tmp_path / "second")
    (second.here / "secret").write_text(kept)
    asked = second.run("follow")
    assert second.secret("keys") == host.secret("keys")
    assert not [line for line in asked if "put-secret-value" in line]


def test_nothing_happens_while_nothing_changed(host: Host) -> None:
    host.run("follow")
    assert [line.split(" (")[0] for line in host.run("follow")] == [
        "aws ssm get-parameter --name /lablink/dev/run --query Parameter.Value --output text"
    ]


def test_before_another_image_runs_what_was_is_backed_up_with_the_former_one(host: Host) -> None:
    host.run("follow")
    host.shall_run("1.1.0")
    asked = host.run("follow")
    (dumped,) = [number for number, line in enumerate(asked) if "pg_dump" in line]
    (pulled,) = [number for number, line in enumerate(asked) if " pull " in line]
    assert dumped < pulled
    assert asked[dumped].endswith("(ghcr.io/x/y:1.0.0)")
    assert asked[pulled].endswith("(ghcr.io/x/y:1.1.0)")


def test_changed_settings_start_the_server_anew_without_a_backup(host: Host) -> None:
    host.run("follow")
    host.shall_run("1.0.0", **{"log.level": "debug"})
    asked = host.run("follow")
    assert any("rm --stop --force server" in line for line in asked)
    assert not [line for line in asked if "pg_dump" in line]
    assert json.loads((host.etc / "settings.yaml").read_text()) == {"log.level": "debug"}


def test_an_image_that_cannot_be_had_is_tried_again_and_the_former_goes_on(host: Host) -> None:
    host.run("follow")
    host.shall_run("1.1.0")
    (host.here / "fail").write_text("pull")
    with pytest.raises(subprocess.CalledProcessError):
        host.run("follow")
    (host.here / "fail").unlink()
    assert any(" up " in line and line.endswith("(ghcr.io/x/y:1.1.0)") for line in host.run("follow"))


def test_a_dump_that_broke_off_is_never_called_a_backup(host: Host) -> None:
    host.run("follow")
    (host.here / "fail").write_text("pg_dump")
    with pytest.raises(subprocess.CalledProcessError):
        host.run("backup")
    assert not [line for line in host._log.read_text().splitlines() if "s3 cp" in line]


def test_with_rds_no_postgres_runs_here_and_the_connection_is_encrypted(host: Host) -> None:
    host.shall_run("1.0.0", database_host="db.example")
    host.run("follow")
    assert host.secret("database_url") == "postgresql://lablink:of-rds@db.example:5432/lablink?sslmode=require"
    assert host.secret("database_password") == "of-rds"


def test_a_restore_stops_the_server_before_it_touches_the_database(host: Host) -> None:
    host.run("follow")
    asked = [line for line in host.run("restore", "20261101T031700Z") if line.startswith("docker")]
    order = [next(word for word in ("stop server", "pg_restore", "-xz", " up ") if word in line) for line in asked]
    assert order == ["stop server", "pg_restore", "-xz", " up "]
