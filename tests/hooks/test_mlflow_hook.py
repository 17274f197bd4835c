"""The hook on real parts: a real MLflow server by a name that a real name server knows."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import threading
import time
from copy import deepcopy
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns.client import adapters
from airflow_provider_hokusai_dns.exceptions import (
    AsyncOutsideRunError,
    BreakerOpenError,
    ConnectionMissingError,
    DNSResolutionError,
    MLflowRefusedError,
    MLflowUnreachableError,
    SettingError,
)
from airflow_provider_hokusai_dns.health.breaker import breaker_for
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.resolver.pin import pinned
from tests.conftest import HOSTNAME, SEARCH, TinyMLflow
from tests.servers import MLflowProcess, free_port

SECRET = "hunter2-password"
CREATE = "/api/2.0/mlflow/runs/create"


class TestWhatItSays:
    """Without a server."""

    def test_keeps_the_hostname_in_the_uri(self, usable, tiny):
        """And gives the address form to those who want it."""
        hook = MLflowHook()
        assert hook.tracking_uri == f"http://{HOSTNAME}:{tiny.port}"
        assert hook.resolved_tracking_uri == f"http://{tiny.address}:{tiny.port}"

    def test_tells_what_the_name_resolves_to_and_why(self, usable, dns, tiny):
        """Address, source, age and cause, fresh and old."""
        usable(cache_ttl=1)
        hook = MLflowHook()
        hook.resolve()
        info = hook.get_dns_info()
        assert (info["addresses"], info["source"], info["state"]) == (
            [tiny.address], "cache", "healthy",
        )  # fmt: skip
        dns.no_such_name(HOSTNAME)
        time.sleep(1)
        assert hook.refresh_dns_resolution().is_stale
        info = hook.get_dns_info()
        assert (info["source"], info["cause"], info["state"]) == ("stale", "nxdomain", "degraded")

    def test_is_an_argument_of_a_task_like_any_other(self):
        """Airflow calls ``resolve`` of an argument, as if it were a reference to an XCom."""
        from airflow.providers.standard.operators.python import PythonOperator

        hook = MLflowHook()
        task = PythonOperator(task_id="t", python_callable=print, op_kwargs={"hook": hook})
        task.render_template_fields({})
        assert task.op_kwargs["hook"] is hook

    @pytest.mark.parametrize("copied", [lambda hook: pickle.loads(pickle.dumps(hook)), deepcopy])
    def test_can_be_given_to_another_process_after_its_use(self, usable, monkeypatch, copied):
        """Such as a worker of Spark or Dask, which has no connections of Airflow."""
        monkeypatch.setattr("structlog._config._CONFIG.cache_logger_on_first_use", True)  # a task's
        hook = MLflowHook()
        hook.log.info("%s is used", hook.server.named)
        monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT")
        again = copied(hook)
        again.log.info("%s is used again", again.server.named)
        assert again.rest("POST", SEARCH, json={}) == {"experiments": []}

    def test_can_be_made_in_a_child_while_a_thread_reads_a_connection(
        self, connect, monkeypatch, clean_runtime
    ):
        """The child has no thread that would release what the reading one holds."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import CommsDecoder

        connect("of_the_environment", host="127.0.0.1")
        ours, supervisors = socket.socketpair()
        with ours, supervisors:
            comms = CommsDecoder(socket=ours)
            monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)

            def read() -> None:
                with contextlib.suppress(Exception):
                    _ = MLflowHook("of_airflow").server

            reader = threading.Thread(target=read)
            reader.start()
            assert supervisors.recv(1)  # the question, which is not answered
            if not (child := os.fork()):
                signal.alarm(10)
                os._exit(int(MLflowHook("of_the_environment").server.hostname != "127.0.0.1"))
            status = os.waitpid(child, 0)[1]
            supervisors.close()
            reader.join()
        assert os.waitstatus_to_exitcode(status) == 0

    def test_tells_that_there_is_nothing(self, usable, dns):
        """As data, and with the whole story."""
        dns.no_such_name(HOSTNAME)
        info = MLflowHook().get_dns_info()
        assert (info["resolved_uri"], info["cause"]) == (None, "nxdomain")
        assert HOSTNAME in info["error"]
        with pytest.raises(DNSResolutionError):
            MLflowHook().resolve()

    def test_names_a_connection_that_is_missing_or_wrong(self, connect, clean_runtime):
        """Before anything is done."""
        with pytest.raises(ConnectionMissingError, match="'nowhere'"):
            MLflowHook("nowhere").resolve()
        connect("bad", host="mlflow.local", port=99999)
        with pytest.raises(SettingError, match="99999"):
            MLflowHook("bad").get_conn()

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"tags": ["a"]}, "tags must be a dict, not a list"),
            ({"tags": {1: "b"}}, "tags must map strings to strings, not 1 to 'b'"),
            ({"tags": {"epochs": 3}}, "tags must map strings to strings, not 'epochs' to 3"),
            ({"run_name": 3}, "run_name must be a string, not 3"),
            ({"experiment_name": ["e"]}, "experiment_name must be a string, not a list"),
            ({"run_id": 7}, "run_id must be a string, not 7"),
        ],
    )
    def test_names_a_wrong_argument_of_a_run_before_it_asks_for_anything(self, given, told):
        """MLflow's client would say "bad argument type for built-in operation"."""
        with pytest.raises(ValueError, match=told), MLflowHook("nowhere").run(**given):
            pass

    def test_names_checks_that_are_no_list(self):
        """A text is one too, of letters."""
        with pytest.raises(ValueError, match="checks must be a list of words, not 'dns'"):
            MLflowHook("nowhere").check("dns")

    def test_follows_a_changed_connection_with_the_next_hook(self, usable, dns, tiny):
        """Without a restart."""
        MLflowHook().resolve()
        usable(cache_ttl=7)
        hook = MLflowHook()
        assert hook.resolver.config.ttl_overrides == {HOSTNAME: 7}


class TestTheTestButton:
    """(bool, one sentence), also under a made-up connection id."""

    def test_says_that_it_works(self, usable):
        """Without touching what the process knows."""
        ok, sentence = MLflowHook().test_connection()
        assert ok
        assert "answers at" in sentence

    def test_works_under_a_made_up_id(self, usable, connect, dns, tiny, clean_runtime):
        """The admin tries other values than those in use: that is no conflict."""
        usable(cache_ttl=7)
        MLflowHook().resolve()
        made_up = connect(
            "tmp_abc123", host=HOSTNAME, port=tiny.port,
            extra={"nameservers": dns.address, "cache_ttl": 9},
        )  # fmt: skip
        assert MLflowHook(made_up).test_connection()[0]

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            ((401, "no"), "login"),
            ((403, "Invalid Host header - possible DNS rebinding attack detected"),
             "--allowed-hosts"),
            ((503, {}), "database"),
            ((200, "<html>"), "not an MLflow"),
        ],
    )  # fmt: skip
    def test_says_what_is_wrong(self, usable, tiny, answer, told):
        """In one sentence that says what to do."""
        tiny.answers[SEARCH] = answer
        ok, sentence = MLflowHook().test_connection()
        assert not ok
        assert told in sentence

    def test_says_that_there_is_no_such_name(self, usable, dns):
        """And that it may be a typo."""
        dns.no_such_name(HOSTNAME)
        ok, sentence = MLflowHook().test_connection()
        assert not ok
        assert "nxdomain" in sentence

    def test_says_which_field_is_wrong(self, connect, clean_runtime):
        """Without asking any server."""
        connect(host="mlflow.local", extra={"cash_ttl": 5})
        ok, sentence = MLflowHook().test_connection()
        assert not ok
        assert "cash_ttl" in sentence


class TestTheEntrance:
    """The start of a run fails fast where no server listens."""

    @pytest.fixture(autouse=True)
    def closed_breaker(self, usable):
        yield
        breaker_for(MLflowHook().server).reset()

    def test_fails_within_the_time_of_a_call_when_the_name_is_not_there(self, usable, dns):
        """And not after the deadline of a run: this is a typing error more often than not."""
        usable(request_timeout=1, deadline=600)
        dns.no_such_name(HOSTNAME)
        started = time.monotonic()
        with pytest.raises(DNSResolutionError), MLflowHook().run():
            pytest.fail("the block must not run")
        assert time.monotonic() - started < 60

    def test_waits_for_the_time_of_a_call_when_nobody_listens(self, usable, dns):
        """Not less at the first call, whose address is fresh; the addresses are named."""
        usable(request_timeout=2, deadline=600)
        dns.set_records(HOSTNAME, ["127.0.0.98"])
        started = time.monotonic()
        with pytest.raises(MLflowUnreachableError, match=r"127\.0\.0\.98"), MLflowHook().run():
            pytest.fail("the block must not run")
        assert 1.5 < time.monotonic() - started < 60

    def test_a_server_that_answers_503_is_left_within_the_time_of_a_call(self, usable, tiny):
        """And not after the deadline of a run; the breaker learns of it."""
        usable(request_timeout=2, deadline=600)
        import mlflow  # noqa: F401 - takes seconds the first time

        tiny.answers[CREATE] = (503, "starting")
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(Exception, match="503"), MLflowHook().run():
                pytest.fail("the block must not run")
            assert time.monotonic() - started < 60
        with pytest.raises(BreakerOpenError), MLflowHook().run():
            pytest.fail("the block must not run")

    def test_what_mlflow_refuses_does_not_close_the_entrance(self, usable, tiny):
        """A 4xx is an answer."""
        tiny.answers[CREATE] = (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"})
        for _ in range(4):
            with pytest.raises(Exception, match="INVALID_PARAMETER_VALUE"), MLflowHook().run():
                pytest.fail("the block must not run")

    def test_from_the_start_on_the_deadline_of_a_run_holds(self, usable, tiny):
        """For MLflow's client and for the pin, until the block is left."""
        usable(request_timeout=2, deadline=600)
        run = {"info": {"run_id": "a" * 32, "experiment_id": "0", "status": "RUNNING"}, "data": {}}
        tiny.answers["*"] = (200, {"run": run})
        hook = MLflowHook()
        with hook.run():
            assert adapters.adapter_of("mlflow_default").patience == 600
            assert pinned(HOSTNAME)._patience_for(tiny.port)[0] > (100, 2)
        assert adapters.adapter_of("mlflow_default").patience == 2
        assert [each.seconds for each in pinned(HOSTNAME)._patience_for(tiny.port)] in ([], [2])

    def test_a_nested_run_waits_for_a_server_that_went_away_a_moment_ago(self, usable, tiny):
        """The address accepted a connection less than a second before, and counts as alive."""
        usable(request_timeout=2, deadline=600)
        run = {"info": {"run_id": "a" * 32, "experiment_id": "0", "status": "RUNNING"}, "data": {}}
        tiny.answers["*"] = (200, {"run": run})
        with contextlib.ExitStack() as stack, MLflowHook().run():

            def come_back():
                again = stack.enter_context(TinyMLflow(tiny.address, tiny.port))
                again.answers |= tiny.answers

            tiny.__exit__()
            back = threading.Timer(2, come_back)
            stack.callback(back.join)
            back.start()
            with MLflowHook().run(nested=True):
                assert not back.is_alive()

    def test_fails_at_once_after_that_happened_three_times(self, usable, dns):
        """The breaker stands at the entrances."""
        usable(request_timeout=0.1)
        dns.set_records(HOSTNAME, ["127.0.0.98"])
        for _ in range(3):
            with pytest.raises(MLflowUnreachableError), MLflowHook().run():
                pass
        with pytest.raises(BreakerOpenError), MLflowHook().run():
            pass
        with pytest.raises(BreakerOpenError):
            MLflowHook().get_conn()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = free_port("127.0.0.8")
    with MLflowProcess(
        tmp_path_factory.mktemp("mlflow"),
        host="127.0.0.8",
        port=port,
        allowed_hosts=[f"{HOSTNAME}:{port}"],
        arguments=["--uvicorn-opts", "--timeout-keep-alive 1"],
    ) as process:
        yield process


@pytest.fixture
def hook(server, dns, connect, clean_runtime):
    dns.set_records(HOSTNAME, ["127.0.0.8"], ttl=1)
    connect(
        host=HOSTNAME,
        port=server.port,
        login="me",
        password=SECRET,
        extra={
            "nameservers": dns.address,
            "cache_ttl": 0.1,
            "experiment": "of-the-connection",
            "request_timeout": 5,
            "deadline": 200,  # far more than a server takes to start on a busy machine
        },
    )
    yield MLflowHook()
    breaker_for(MLflowHook().server).reset()


@pytest.mark.integration
class TestOnARealServer:
    """MLflow itself, started with --allowed-hosts for the name, so that addresses are refused."""

    def test_the_client_works_while_the_name_is_gone(self, hook, dns):
        """REST calls of a client that was taken before."""
        client = hook.get_conn()
        assert client.search_experiments()
        dns.no_such_name(HOSTNAME)
        time.sleep(1.5)  # uvicorn has hung up by now, so the name is needed again
        assert client.search_experiments()

    def test_nothing_is_lost_when_the_name_goes_away_in_the_middle(self, hook, dns, tmp_path):
        """200 asynchronous metrics, an artifact, FINISHED."""
        with hook.run("survives", "first", tags={"mine": "yes"}) as run:
            import mlflow

            for step in range(100):
                mlflow.log_metric("loss", step, step=step, synchronous=False)
            dns.no_such_name(HOSTNAME)
            time.sleep(1.5)
            for step in range(100, 200):
                mlflow.log_metric("loss", step, step=step, synchronous=False)
            mlflow.log_text("text", "folder/file.txt")
        dns.set_records(HOSTNAME, ["127.0.0.8"], ttl=1)
        client = hook.get_conn()
        seen = client.get_run(run.info.run_id)
        assert seen.info.status == "FINISHED"
        assert seen.data.tags["mine"] == "yes"
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 200
        path = client.download_artifacts(run.info.run_id, "folder/file.txt", str(tmp_path))
        assert Path(path).read_text() == "text"

    def test_a_run_ends_as_failed_with_the_authors_own_exception(self, hook):
        """Which comes out as it is."""
        with pytest.raises(KeyError, match="mine"), hook.run() as run:
            raise KeyError("mine")
        client = hook.get_conn()
        assert client.get_run(run.info.run_id).info.status == "FAILED"
        experiment = client.get_experiment_by_name("of-the-connection")
        assert run.info.experiment_id == experiment.experiment_id

    def test_the_authors_own_errors_do_not_close_the_entrance(self, hook):
        """Not even where they look like those of a server that is down."""
        for _ in range(4):
            with pytest.raises(ConnectionError, match="mine"), hook.run():
                raise ConnectionError("mine")
        assert breaker_for(hook.server).status().failures == 0

    def test_a_task_that_skips_itself_has_not_failed(self, hook):
        """A run that was left by a skip is FINISHED."""
        from airflow.sdk.exceptions import AirflowSkipException

        with pytest.raises(AirflowSkipException), hook.run() as run:
            raise AirflowSkipException
        assert hook.get_conn().get_run(run.info.run_id).info.status == "FINISHED"

    @pytest.mark.parametrize(
        "name",
        ["AirflowRescheduleException", "DagRunTriggerException", "DownstreamTasksSkipped",
         "TaskAwaitingInput", "TaskDeferred"],
    )  # fmt: skip
    def test_a_task_that_ends_in_another_way_has_not_failed(self, hook, name):
        """Nor one that waits for a person, triggers another DAG, or skips what comes after it."""
        from airflow.sdk import exceptions

        kind = getattr(exceptions, name, None)
        if kind is None:
            pytest.skip(f"this Airflow has no {name}")
        with pytest.raises(kind), hook.run() as run:
            raise kind.__new__(kind)
        assert hook.get_conn().get_run(run.info.run_id).info.status == "FINISHED"

    def test_the_breaker_never_acts_inside_a_run(self, hook):
        """Calls that failed there close nothing."""
        from airflow_provider_hokusai_dns.exceptions import MLflowRestError

        with hook.run():
            for _ in range(4):
                with pytest.raises(MLflowRestError):
                    hook.rest("GET", "/api/2.0/mlflow/no-such-thing")
            breaker = breaker_for(hook.server)
            for _ in range(3):
                with breaker.attempt() as attempt:
                    attempt.failure("as another thread has it")
            with hook.run(nested=True):
                assert hook.get_conn().search_experiments()
                assert hook.rest("GET", "/api/2.0/mlflow/experiments/search?max_results=1")
        with pytest.raises(BreakerOpenError):
            hook.get_conn()

    def test_asynchronous_logging_outside_a_run_is_refused(self, hook):
        """MLflow sends it at the exit of a process that Airflow does not wait for."""

        client = hook.get_conn()
        run_id = client.create_run("0").info.run_id
        with pytest.raises(AsyncOutsideRunError, match=r"hook\.run"):
            client.log_metric(run_id, "m", 1.0, synchronous=False)
        client.log_metric(run_id, "m", 1.0)
        with hook.run(run_id=run_id):
            client.log_metric(run_id, "n", 1.0, synchronous=False)
        assert client.get_run(run_id).data.metrics == {"m": 1.0, "n": 1.0}

    @pytest.mark.filterwarnings("default")  # MLflow's own, in which a span would fail
    def test_a_trace_outside_a_run_is_refused(self, hook):
        """It never reached the server of the connection: MLflow sends it to the process's own."""
        client = hook.get_conn()
        with pytest.raises(
            AsyncOutsideRunError, match=r"start_trace outside of hook\.run"
        ) as error:
            client.start_trace("t")
        assert "synchronous" not in str(error.value)
        with hook.run() as run:
            client.end_trace(client.start_trace("t", experiment_id=run.info.experiment_id).trace_id)
        (trace,) = client.search_traces(locations=[run.info.experiment_id])
        assert [span.name for span in trace.data.spans] == ["t"]

    def test_the_fluent_api_can_be_used_without_a_run(self, hook):
        """To search, and to load models."""
        import mlflow

        before = mlflow.get_tracking_uri()
        with hook.fluent():
            assert mlflow.search_experiments()
        assert mlflow.get_tracking_uri() == before

    def test_the_fluent_api_without_a_run_refuses_what_nothing_would_wait_for(self, hook):
        """As the client does; inside a run it is delivered. The experiment is undone."""
        import mlflow
        from mlflow.tracking import fluent

        before = fluent._active_experiment_id
        with hook.fluent():
            mlflow.set_experiment("in a fluent block")
            with pytest.raises(AsyncOutsideRunError):
                mlflow.log_metric("m", 1.0, synchronous=False)
        assert fluent._active_experiment_id == before
        with hook.fluent(), hook.run() as run:
            mlflow.log_metric("m", 1.0, synchronous=False)
        assert hook.get_conn().get_run(run.info.run_id).data.metrics == {"m": 1.0}

    def test_a_run_that_is_begun_without_a_run_ends_with_the_block(self, hook):
        """MLflow begins one for what is logged without; an outer run goes on."""
        import mlflow

        with hook.fluent():
            mlflow.log_metric("m", 1.0)
            first = mlflow.active_run().info.run_id
        begun = []

        def fails():
            with hook.fluent(), mlflow.start_run():
                begun.append(mlflow.start_run(nested=True).info.run_id)
                raise KeyError

        with pytest.raises(KeyError):
            fails()
        assert mlflow.active_run() is None
        client = hook.get_conn()
        assert client.get_run(first).info.status == "FINISHED"
        assert client.get_run(begun[0]).info.status == "FAILED"
        with hook.run() as outer:
            with hook.fluent():
                pass
            assert mlflow.active_run().info.run_id == outer.info.run_id
            assert client.get_run(outer.info.run_id).info.status == "RUNNING"

    def test_a_server_that_refuses_is_named_as_a_gate_names_it(self, server, dns, connect, hook):
        """The gate's sentence first, MLflow's own error beneath."""
        from mlflow.exceptions import MlflowException

        dns.set_records("other.test", ["127.0.0.8"])
        connect("refused", host="other.test", port=server.port,
                extra={"nameservers": dns.address, "request_timeout": 5})  # fmt: skip
        refused = MLflowHook("refused")
        with pytest.raises(MLflowRefusedError, match="--allowed-hosts") as caught, refused.run():
            pytest.fail("the block must not run")
        assert caught.value.state == "host_rejected"
        assert isinstance(caught.value.__cause__, MlflowException)

    def test_two_tasks_share_a_run(self, hook):
        """The first leaves it open, the second resumes it by its id."""
        with hook.run(end=False) as run:
            pass
        client = hook.get_conn()
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
        with hook.run(run_id=run.info.run_id) as again:
            assert again.info.run_id == run.info.run_id
        assert client.get_run(run.info.run_id).info.status == "FINISHED"

    def test_no_secret_stands_anywhere(self, hook, caplog, capfd):
        """Not in the environment, not in a URI, not in what was logged or printed."""
        with hook.run() as run:
            import mlflow

            assert SECRET not in mlflow.get_tracking_uri()
            assert SECRET not in run.info.artifact_uri
            connection = "AIRFLOW_CONN_MLFLOW_DEFAULT"
            assert not [k for k, v in os.environ.items() if SECRET in v and k != connection]
        out, err = capfd.readouterr()
        assert SECRET not in caplog.text + out + err
        assert "mlflow_default@" not in caplog.text + out + err, "a link with our tag in it"
        assert SECRET not in repr(hook.server) + repr(hook.get_dns_info())

    def test_a_registered_model_goes_to_the_same_server(self, hook):
        """The registry of the connection, and not one of the environment."""
        with hook.run() as run:
            import mlflow

            mlflow.log_dict({"w": 1}, "model/w.json")
            client = hook.get_conn()
            client.create_registered_model("m")
            made = client.create_model_version(
                "m", f"{run.info.artifact_uri}/model", run_id=run.info.run_id
            )
        assert hook.get_conn().get_model_version("m", made.version).run_id == run.info.run_id

    @pytest.mark.timeout(300)
    def test_a_redeploy_to_a_new_address_is_ridden_out(self, hook, dns, server):
        """As ECS does it: name gone, server stopped, a new one elsewhere, name back."""
        import threading

        def redeploy() -> None:
            dns.no_such_name(HOSTNAME)
            server.stop()
            server.start()
            dns.set_records(HOSTNAME, ["127.0.0.8"], ttl=1)

        with hook.run("redeployed") as run:
            import mlflow

            mlflow.log_metric("loss", 0, step=0, synchronous=False)
            deploying = threading.Thread(target=redeploy)
            deploying.start()
            for step in range(1, 50):
                mlflow.log_metric("loss", step, step=step, synchronous=False)
                time.sleep(0.02)
            deploying.join()
        client = hook.get_conn()
        assert client.get_run(run.info.run_id).info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 50
