"""wrk as the load generator of everything that speaks HTTP."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.figures import PERCENTILES, BadOutput, Run, run_of_wrk
from benchmarks.processes import Failed, run

_SCRIPT: Final = """
local requests = {}
local headers = {}
function init()
  local head = io.lines(FILE)
  local method, content_type = head(), head()
  if content_type ~= "" then headers["Content-Type"] = content_type end
  for line in head do
    local path, body = line:match("^(%S+) ?(.*)$")
    if body == "=" then body = string.rep("v", VALUE_BYTES) elseif body == "" then body = nil end
    requests[#requests + 1] = wrk.format(method, path, headers, body)
  end
end
local turn = 0
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(_, latency, _)
  for _, part in ipairs({PERCENTILES}) do
    print(string.format("percentile %g %g", part, latency:percentile(part)))
  end
end
"""


def drive(
    url: str, method: str, lines: Iterable[str], *, clients: int, seconds: int, content_type: str = "", value_bytes: int
) -> Run:
    """One run of wrk, one thread; each line is a path and a body, ``=`` standing for the value.

    Raises Failed when a single answer is no success.
    """
    if shutil.which("wrk") is None:
        raise Failed("wrk is not installed")
    with tempfile.TemporaryDirectory(prefix="raftkv-wrk-") as directory:
        requests, script = Path(directory, "requests"), Path(directory, "load.lua")
        requests.write_text("\n".join([method, content_type, *lines]) + "\n")
        text = _SCRIPT.replace("FILE", json.dumps(str(requests))).replace("VALUE_BYTES", str(value_bytes))
        script.write_text(text.replace("PERCENTILES", ", ".join(f"{part:g}" for part in PERCENTILES)))
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", str(script)]
        printed = run([*command, url], timeout_s=60 + 3 * seconds)
    try:
        return replace(run_of_wrk(printed.text), generator_cpu_s=printed.cpu_s)
    except BadOutput as error:
        raise Failed(f"{method} at {url}, {clients} clients: {error}") from None
