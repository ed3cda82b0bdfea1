"""`wandb agent` works on a sweep of ours, and its runs log to a small server in W&B's place."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import pytest
import yaml

HOUSE = Path(__file__).parents[2]
SWEEP = HOUSE / "sweeps" / "audioedsr_table3.yaml"
CELLS = ("Spline on vctk, x2", "AudioEDSR on vctk, x2")
ENTITY = {"id": "entity", "name": "us"}
PROJECT = {"id": "project", "name": "wideband", "entity": ENTITY}


class Server(ThreadingHTTPServer):
    """What of W&B's GraphQL a sweep, its agent and its runs ask for; all that they say is kept."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Requests)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.sweep: dict = {}
        self.given: list[dict] = []  # the parameters of the runs that the agent was sent
        self.heard: list[dict] = []  # which runs it said are running
        self.runs: dict[str, dict] = {}  # by id
        self.artifacts: list[dict] = []
        self.unknown: list[str] = []

    def answer(self, query: str, said: dict) -> dict | None:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)[1]
        if not hasattr(self, name):
            self.unknown.append(name)
            return None
        return getattr(self, name)(said)

    def upload(self, name: str) -> dict:
        return {"name": name, "uploadUrl": f"{self.url}/upload/{name}", "uploadHeaders": []}

    # Accounts and sweeps

    def Viewer(self, said):
        teams = {"edges": []}
        return {"viewer": {"id": "viewer", "entity": "us", "username": "us", "flags": "{}", "teams": teams}}

    def UpsertSweep(self, said):
        self.sweep = yaml.safe_load(said["config"])
        return {
            "upsertSweep": {"sweep": {"name": "sweep123", "project": PROJECT}, "configValidationWarnings": []}
        }

    def SweepWithRuns(self, said):
        sweep = {"id": "sweep", "name": said["sweep"], "config": yaml.dump(self.sweep), "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def CreateAgent(self, said):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def Heartbeat(self, said):
        """One run after the other, then the end."""
        self.heard.append(json.loads(said["runState"]))
        parameters = self.sweep["parameters"]
        axes = [one.get("values", [one.get("value")]) for one in parameters.values()]
        grid = list(product(*axes))
        commands = []
        if not self.heard[-1] and len(self.given) == len(grid):
            commands = [{"type": "exit"}]
        elif not self.heard[-1]:
            args = dict(zip(parameters, grid[len(self.given)], strict=True))
            self.given.append(args)
            run = {"run_id": f"run{len(self.given)}", "program": self.sweep["program"]}
            commands = [
                {"type": "run", **run, "args": {key: {"value": value} for key, value in args.items()}}
            ]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    # Runs

    def RunResumeStatus(self, said):
        return {"model": {**PROJECT, "bucket": None}}

    def UpsertBucket(self, said):
        run = self.runs.setdefault(said["name"], {"files": set(), "history": [], "exitcode": None})
        run |= {key: value for key, value in said.items() if value is not None}
        bucket = {"id": said["name"], "name": said["name"], "displayName": run.get("displayName")}
        bucket |= {"config": run["config"], "sweepName": run.get("sweep"), "project": PROJECT}
        return {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0}, "inserted": True}}

    def CreateRunFiles(self, said):
        self.runs[said["run"]]["files"] |= set(said["files"])
        files = [self.upload(name) for name in said["files"]]
        return {"createRunFiles": {"runID": said["run"], "uploadHeaders": [], "files": files}}

    def streamed(self, run: dict, said: dict) -> None:
        files = said.get("files") or {}
        run["history"] += map(json.loads, files.get("wandb-history.jsonl", {}).get("content", ()))
        for line in files.get("wandb-summary.json", {}).get("content", ()):
            run["summary"] = json.loads(line)
        if said.get("complete"):
            run["exitcode"] = said["exitcode"]

    # Artifacts

    def CreateArtifact(self, said):
        self.artifacts.append(said["input"])
        made = {"id": "artifact", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def CreateArtifactManifest(self, said):
        manifest = {"id": "manifest", "file": {"id": "file", **self.upload("manifest")}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def CreateArtifactFiles(self, said):
        wanted = [file["name"] for file in said["input"]["artifactFiles"]]
        more = {"storagePath": "file", "uploadMultipartUrls": None, "artifact": {"id": "artifact"}}
        files = [{"node": {**self.upload(name), **more}} for name in wanted]
        return {"createArtifactFiles": {"files": {"edges": files}}}

    def CommitArtifact(self, said):
        return {"commitArtifact": {"artifact": {"id": "artifact", "digest": "digest"}}}


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        data = {}
        if self.path == "/graphql":
            said = json.loads(body)
            found = self.server.answer(said["query"], said.get("variables") or {})
            data = {"data": found} | ({} if found else {"errors": [{"message": "not in the stand-in"}]})
        elif self.path.endswith("/file_stream"):
            self.server.streamed(self.server.runs[self.path.split("/")[-2]], json.loads(body))
        text = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST

    def log_message(self, *arguments):
        """pytest shows enough."""


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_an_agent_runs_cells_of_a_sweep_and_they_log_to_the_server(server, tiny_corpus, tmp_path):
    sweep = yaml.safe_load(SWEEP.read_text())
    sweep["parameters"]["cell"]["values"] = list(CELLS)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    small = [f"data.root={tiny_corpus}", f"data.folder={tmp_path / 'data'}", f"output={tmp_path / 'runs'}"]
    small += ["preset=smoke", "data.test_files=1", "data.workers=1", "trainer.threads=1"]
    folders = {f"WANDB_{name}_DIR": str(tmp_path / "wandb") for name in ("CACHE", "CONFIG", "DATA")}
    account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_DIR": str(tmp_path)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # on which agents find `python`
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    command = [sys.executable, "experiments/sweep.py", str(tmp_path / "sweep.yaml"), "--agents", "1", *small]
    environ |= {**folders, **account, "PATH": path, "PYTHONPATH": str(HOUSE)}
    done = subprocess.run(command, cwd=HOUSE, env=environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, (done.stdout, done.stderr, server.unknown)
    assert [args["cell"] for args in server.given] == list(CELLS)
    assert server.heard[-1] == {} and {"run1": True} in server.heard and {"run2": True} in server.heard
    records = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*/*/record.json")]
    assert server.runs.keys() == {"run1", "run2"}
    for run, cell in zip(map(server.runs.get, ("run1", "run2")), CELLS, strict=True):
        assert run["exitcode"] == 0
        assert run["sweep"] == "sweep123"
        config = {key: each["value"] for key, each in json.loads(run["config"]).items()}
        assert (config["cell"], config["table"], config["preset"]) == (cell, "table3", "smoke")
        (record,) = (record for record in records if record.get("system") == config["row"])
        assert run["summary"]["vctk, x2/LSD"] == record["mean"]["LSD"]
        assert any("table" in line for line in run["history"])
        assert any(re.fullmatch(r"media/audio/vctk, x2/estimate_.*\.wav", name) for name in run["files"])
    steps = [line["edsr_x2/step"] for line in server.runs["run2"]["history"] if "edsr_x2/train/l2" in line]
    assert steps == [0, 1, 2, 3]
    (trained,) = (record for record in records if record["kind"] == "run")
    (model,) = (each for each in server.artifacts if each["artifactTypeName"] == "model")
    assert model["artifactCollectionName"] == "audioedsr-edsr_x2"
    assert {"alias": trained["id"], "artifactCollectionName": "audioedsr-edsr_x2"} in model["aliases"]
    assert json.loads(model["metadata"])["held_out"] == trained["held_out"]
