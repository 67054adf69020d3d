"""The files for running a gateway are in form, not root, and ask for what there is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"


def instructions(text):
    """The Dockerfile's instructions, continued lines joined."""
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#"))).splitlines()
    return [line.split(None, 1) for line in lines if line.strip()]


def test_the_image_is_not_root_and_looks_after_its_health():
    found = instructions((DEPLOY / "Dockerfile").read_text())
    last = max(i for i, (name, _) in enumerate(found) if name == "FROM")
    names = [name for name, _ in found[last:]]
    user = next(value for name, value in reversed(found) if name == "USER")
    assert user.isdigit()
    assert int(user) > 0
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "HEALTHCHECK" in names
    assert "whl/cpu" in (DEPLOY / "Dockerfile").read_text()
    code = re.search(r'"-c", "([^"]+)"', (DEPLOY / "Dockerfile").read_text())[1]
    compile(code, "HEALTHCHECK", "exec")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"  # nothing but what is named, so that no .env and no keys get in
    for path in ignored[1:]:
        assert (DEPLOY.parent / path.removeprefix("!")).exists(), path


def test_the_composition_gives_the_container_as_little_as_it_needs():
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["gateway"]
    assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    for volume in service["volumes"]:
        assert not volume.startswith("./") or (DEPLOY / volume.split(":")[0]).is_file()
    for value in service["environment"].values():
        assert re.fullmatch(r"\$\{\w+:-\}", value), "secrets come from the environment"


def test_the_configuration_is_one_that_the_gateway_takes():
    raw = yaml.safe_load((DEPLOY / "gateway.yaml").read_text())
    assert raw["keys"], "it listens to others"
    config = pytest.importorskip("demeanor.gateway.config")
    if "keys" not in config.GatewayConfig.model_fields:
        pytest.skip("the gateway's configuration names no keys yet")
    config.load_config(DEPLOY / "gateway.yaml")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_one_that_systemd_takes(tmp_path):
    unit = tmp_path / "demeanor.service"
    unit.write_text((DEPLOY / "demeanor.service").read_text().replace("/opt/demeanor/bin/demeanor serve", "/bin/true serve"))
    done = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_names_every_file():
    page = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.iterdir():
        assert path.name in page or path.name in ("README.md", "Dockerfile.dockerignore"), path.name
