"""A machine to boot: a root directory of its own in a mount and a process namespace, on this computer's network.

Needs root (CAP_SYS_ADMIN) and util-linux, no container engine. The programs are this computer's own, by read-only
mounts of /usr and of Python; /etc is a copy; everything else is new. `systemctl`, `docker` and `apt-get` are stand-ins:
shell scripts that keep what they were asked, and as much state as the boot can notice.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import psutil

STAND_INS = Path(__file__).parent / "stand_ins"
PYTHON = Path(sys.base_prefix)
_FRESH = ("opt", "var/lib/cloud/instance/scripts", "var/log", "run/lock", "tmp", "srv", "root", "proc", "dev", "usr")
_SET_UP = """
set -e
mount --make-rprivate /
mount --rbind /usr {root}/usr
mount -o remount,bind,ro {root}/usr
mount --rbind /dev {root}/dev
mount -t proc proc {root}/proc
mount --bind {root}/run/boot_id {root}/proc/sys/kernel/random/boot_id
mkdir -p {root}{python}
mount --bind {python} {root}{python}
mount -o remount,bind,ro {root}{python}
touch {root}/run/up
# Not by exec: the first process buries what the others leave.
sleep infinity
:
"""


class Machine:
    """One machine. What is in its ``root`` outlives ``power_off``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for directory in _FRESH:
            (root / directory).mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        (root / "tmp").chmod(0o1777)
        shutil.copytree(
            "/etc", root / "etc", symlinks=True, ignore_dangling_symlinks=True, copy_function=_copy_if_there
        )
        for unit in ("etc/systemd/system", "etc/systemd/system/multi-user.target.wants"):
            shutil.rmtree(root / unit, ignore_errors=True)
            (root / unit).mkdir(parents=True)
        shutil.copytree(STAND_INS, root / "stand-ins")
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                (root / name).symlink_to(Path("/", name).readlink())
        self._life: subprocess.Popen[bytes] | None = None

    def power_on(self) -> None:
        """The namespaces begin; nothing runs in them yet."""
        (self.root / "run/up").unlink(missing_ok=True)
        # The kernel is this computer's, and has not booted.
        (self.root / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
        script = _SET_UP.format(root=self.root, python=PYTHON)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        self._life = subprocess.Popen([*unshare, "sh", "-c", script])
        while not (self.root / "run/up").exists():
            assert self._life.poll() is None, "no namespaces: this needs root, with CAP_SYS_ADMIN"

    def power_off(self) -> None:
        """Everything in it ends at once, as when the current is cut."""
        if self._life is not None:
            (first,) = psutil.Process(self._life.pid).children()
            self._life.kill()
            self._life.wait()
            # The others are gone once the first is.
            first.wait(10)
        (self.root / "stand-ins/docker.state").write_text(self.kept("docker.state").replace("running", "exited"))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the machine and waits for its end."""
        assert self._life is not None
        (first,) = psutil.Process(self._life.pid).children()
        path = f"/stand-ins:{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["nsenter", "--target", str(first.pid), "--mount", "--pid", "chroot", str(self.root)]
        given = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", **environment}
        variables = [f"{name}={value}" for name, value in given.items()]
        return subprocess.run(
            [*inside, "env", "-i", *variables, *command], capture_output=True, text=True, timeout=120, check=False
        )

    def run_user_data(self, user_data: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What cloud-init does with user_data that begins with ``#!``, once in a machine's life."""
        script = self.root / "var/lib/cloud/instance/scripts/part-001"
        script.write_text(user_data)
        script.chmod(0o700)
        return self.run("/var/lib/cloud/instance/scripts/part-001", **environment)

    def boot(self) -> None:
        """What systemd does at a later boot: it starts the units that are enabled."""
        self.power_on()
        for unit in (self.root / "etc/systemd/system/multi-user.target.wants").iterdir():
            assert self.run("systemctl", "restart", unit.name).returncode == 0

    def kept(self, name: str) -> str:
        """What a stand-in has kept."""
        path = self.root / "stand-ins" / name
        return path.read_text() if path.exists() else ""

    def tell_stand_in(self, name: str, content: str | None) -> None:
        """Sets, or takes back, how a stand-in behaves."""
        path = self.root / "stand-ins" / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)

    @property
    def journal(self) -> str:
        """What the unit has written, and the exit status of each of its runs."""
        path = self.root / "var/log/lablink-agent.service.log"
        return path.read_text(errors="replace") if path.exists() else ""


def _copy_if_there(source: str, target: str) -> None:
    """Tests at its side make users, for which /etc holds files that come and go."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)
