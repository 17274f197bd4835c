"""Our triggers on the real line of Airflow's triggerer; run by `test_floor`, prints a JSON object.

The other end of the line answers as the triggerer's supervisor does, one request after the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading

import greenback
import msgspec
from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    GetVariable,
    VariableResult,
    _RequestFrame,
    _ResponseFrame,
)

from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger

#: Nothing is there: neither a name server, nor MLflow.
CONNECTION = {
    "type": "ConnectionResult",
    "conn_id": "ml",
    "conn_type": "mlflow",
    "host": "mlflow.floor.test",
    "port": 1,
    "schema": "http",
    "login": None,
    "password": None,
    "extra": json.dumps({"nameservers": "127.0.0.1:1"}),
}
STORED = {
    "version": 1,
    "hostname": "mlflow.floor.test",
    "asked": ["127.0.0.1:1"],
    "addresses": ["127.0.0.1"],
    "ttl": 10,
    "resolved_at": sys.argv[1],
    "no_name_since": None,
    "written_by": "gate",
}


def supervise(line: socket.socket, asked: list[str]) -> None:
    """Answer until the line is closed."""
    decoder = msgspec.msgpack.Decoder(_RequestFrame)
    stream = line.makefile("rb")
    while head := stream.read(4):
        frame = decoder.decode(stream.read(int.from_bytes(head, "big")))
        asked.append(frame.body["type"])
        answer = None
        if frame.body["type"] == "GetConnection":
            answer = CONNECTION
        elif frame.body["type"] == "GetVariable":
            text = json.dumps(STORED)
            answer = VariableResult(key=frame.body["key"], value=text).model_dump()
        line.sendall(_ResponseFrame(id=frame.id, body=answer).as_bytes())


async def main() -> dict[str, object]:
    """Run some triggers for one look, and then use the line as another trigger would."""
    ours, theirs = socket.socketpair()
    asked: list[str] = []
    threading.Thread(target=supervise, args=(theirs, asked), daemon=True).start()
    os.dup2(ours.fileno(), 0)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0))
    line = TriggerCommsDecoder(async_writer=writer, async_reader=reader)
    if hasattr(line, "start_reader"):  # from Airflow 3.3 on
        await line.start_reader()
    task_runner.SUPERVISOR_COMMS = line
    strikes = {"cause": "unreachable", "count": 2}

    async def first() -> dict[str, object]:
        await greenback.ensure_portal()  # as the triggerer does it for each trigger
        trigger = MLflowHealthTrigger(
            mlflow_conn_id="ml", fail_fast_on=["unreachable", "config"], strikes=strikes
        )
        async for event in trigger.run():
            return event.payload["verdict"]
        return {}

    verdict, *others = await asyncio.wait_for(asyncio.gather(*(first() for _ in range(20))), 60)
    assert all(one == verdict for one in others)
    other = await asyncio.wait_for(line.asend(GetVariable(key="of_another_trigger")), 5)
    return {"verdict": verdict, "asked": asked, "other": type(other).__name__}


if __name__ == "__main__":
    sys.stdout.write(f"SEEN {json.dumps(asyncio.run(main()))}\n")
    sys.stdout.flush()
    os._exit(0)
