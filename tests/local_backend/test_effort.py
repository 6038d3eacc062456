"""What sequences take adds up to what the counter says, whatever steps it moves in and whoever ends when."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from local_backend.clock import cpu_time
from local_backend.engine.effort import Effort, EffortBook
from local_backend.engine.engine import Engine
from local_backend.engine.latents import LatentPool
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Finished, SamplingParams
from local_backend.engine.runner import ModelRunner
from local_backend.engine.scheduler import SchedulerOptions
from local_backend.measure.arithmetic import Arithmetic, decode_flops, prompt_flops
from local_backend.measure.energy import Meter, find_meter
from local_backend.measure.gauge import CORE_WATTS, GPU_WATTS, Assumed, Cores, Counted, Gauge, find_gauge
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from local_backend.weights.prepare import ModelFolder
from tests.kit.processes import CLIENT_KEY, eventually, gateway, settings
from tests.local_backend.conftest import make_oracle
from tests.local_backend.server_process import ServerProcess

CPU = torch.device("cpu")
SIZE = 8
RANGE = 100_000_000
_LOADING = 120.0
"""Seconds."""

GREEDY = SamplingParams(max_tokens=6, temperature=0.0)


class Powercap:
    """A folder as Linux has it in /sys/class/powercap, of one package that starts again after 100 J."""

    def __init__(self, folder: Path, joules: float = 0.0) -> None:
        self.folder = folder
        zones = (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys"))
        (folder / "intel-rapl").mkdir(parents=True)
        for zone, name in zones:
            (folder / zone).mkdir()
            (folder / zone / "name").write_text(f"{name}\n")
            (folder / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
            (folder / zone / "energy_uj").write_text("0\n")
        self.burn(joules)

    def burn(self, joules: float) -> None:
        file = self.folder / "intel-rapl:0/energy_uj"
        file.write_text(f"{(int(file.read_text()) + round(joules * 1e6)) % RANGE}\n")


class Steps:
    """A gauge whose counter moves when it is told to."""

    source = "nvml"
    watts = 50.0

    def __init__(self) -> None:
        self.pending = 0.0

    def begin(self) -> None:
        self.pending = 0.0

    def take(self, _seconds: float, /) -> float:
        taken, self.pending = self.pending, 0.0
        return taken


PASSES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 4), min_size=1, max_size=6),
        st.floats(1e-3, 0.1),
        st.floats(0, 20),
        st.sets(st.integers(0, 4)),
    ),
    min_size=1,
    max_size=30,
)


@given(PASSES)
def test_what_is_charged_is_what_the_counter_said(passes: Any) -> None:
    gauge = Steps()
    book = EffortBook(gauge)
    book.begin()
    charged, said = 0.0, 0.0
    for rows, seconds, joules, ended in passes:
        gauge.pending += joules
        said += joules
        book.passed(rows, [1] * len(rows), seconds)
        for sequence in ended:
            effort = book.close(sequence)
            assert effort.joules >= 0
            charged += effort.joules
    gauge.pending += 1000.0
    book.passed([9], [0], 1.0)
    charged += sum(book.close(sequence).joules for sequence in range(10))
    assert charged == pytest.approx(said + 1000.0)
    assert book.joules == pytest.approx(charged)
    assert book.flops == sum(len(rows) for rows, *_ in passes)


def test_a_pass_is_shared_by_its_rows() -> None:
    book = EffortBook(Assumed(30.0))
    book.begin()
    book.passed([1, 1, 2], [100, 110, 90], 0.1)
    assert book.close(1) == Effort(pytest.approx(2.0), 210, "estimate")
    assert book.close(2) == Effort(pytest.approx(1.0), 90, "estimate")
    assert book.close(3) == Effort()


def test_who_ends_between_the_counter_s_steps_is_charged_by_the_power_of_late() -> None:
    gauge = Steps()
    book = EffortBook(gauge)
    book.begin()
    book.passed([1], [0], 0.1)
    assert book.close(1).joules == pytest.approx(0.1 * Steps.watts)
    gauge.pending = 20.0
    book.passed([2], [0], 0.1)
    assert book.close(2).joules == pytest.approx(15.0)
    book.passed([3], [0], 0.05)
    assert book.close(3).joules == pytest.approx(0.05 * 20.0 / 0.2)


def test_nobody_is_charged_for_a_machine_that_waits(tmp_path: Path) -> None:
    counter = Powercap(tmp_path / "powercap", joules=95)
    meter = find_meter(CPU, counter.folder)
    assert isinstance(meter, Meter)
    book = EffortBook(Counted(meter, 10.0))
    counter.burn(3)
    book.begin()
    counter.burn(4)
    book.passed([1], [7], 0.1)
    assert book.close(1) == Effort(pytest.approx(4.0), 7, "rapl")


def test_a_counter_that_goes_away_leaves_an_estimate(tmp_path: Path) -> None:
    counter = Powercap(tmp_path / "powercap")
    gauge = find_gauge(CPU, 1, 20.0, counter.folder)
    assert gauge.source == "rapl"
    book = EffortBook(gauge)
    (counter.folder / "intel-rapl:0/energy_uj").unlink()
    book.begin()
    book.passed([1], [0], 0.5)
    assert book.close(1) == Effort(pytest.approx(10.0), 0, "estimate")


def test_without_a_counter_the_power_is_assumed(tmp_path: Path) -> None:
    found = find_gauge(CPU, 2, None, tmp_path)
    assert (found, found.watts) == (Cores(CORE_WATTS, 2), 2 * CORE_WATTS * torch.get_num_threads())
    assert find_gauge(CPU, 1, 12.0, tmp_path) == Cores(12.0)
    assert find_gauge(torch.device("cuda"), 2, None, tmp_path) == Assumed(2 * GPU_WATTS)


def test_on_a_cpu_the_time_of_its_cores_counts_and_not_the_clock() -> None:
    gauge = Cores(10.0, 2)
    began = cpu_time()
    gauge.begin()
    sum(range(2_000_000))
    first = gauge.take(1000.0)
    took = cpu_time() - began
    assert 0 < first <= took * 20.0
    assert gauge.take(1000.0) < first


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DeepseekV3:
    folder: Path = tmp_path_factory.mktemp("tiny")
    make_oracle(folder)
    return load_model(folder, 128, CPU, torch.float32)


class Burning(ModelRunner):
    """Moves a counter by 2 J with every pass."""

    counter: Powercap
    passes = 0

    def prefill(self, chunk: Any) -> Tensor | None:
        return self._burn(super().prefill(chunk))

    def pool(self, chunk: Any) -> Tensor:
        return self._burn(super().pool(chunk))

    def decode(self, rows: Any) -> Tensor:
        return self._burn(super().decode(rows))

    def _burn(self, result: Any) -> Any:
        self.passes += 1
        self.counter.burn(2)
        return result


def make_engine(model: DeepseekV3, gauge: Gauge) -> tuple[Engine, Burning]:
    options = EngineOptions(
        max_queue=4,
        max_length=128,
        vocab_size=256,
        eos_token_ids=(),
        blocks=64,
        block_size=SIZE,
        guesses=0,
        scheduling=SchedulerOptions(max_concurrency=4, prefill_budget=2 * SIZE, chunk=SIZE, replay=4),
        gauge=gauge,
    )
    runner = Burning(model, LatentPool(model.config, 64, SIZE, CPU), CPU, rows=3)
    return Engine(runner, options), runner


async def effort_of(engine: Engine, prompt: list[int], params: SamplingParams | None) -> Effort:
    async for _, event in engine.submit([prompt], [params]):
        if isinstance(event, Finished):
            return event.effort
    raise AssertionError("no Finished event")


async def test_an_engine_s_answers_take_what_a_counter_says_though_it_starts_again(
    model: DeepseekV3, tmp_path: Path
) -> None:
    counter = Powercap(tmp_path / "powercap", joules=97)
    engine, runner = make_engine(model, find_gauge(CPU, 1, None, counter.folder))
    runner.counter = counter
    engine.start()
    prompts = [list(range(20, 20 + length)) for length in (19, 11)]
    efforts = await asyncio.gather(*(effort_of(engine, prompt, GREEDY) for prompt in prompts))
    efforts.append(await effort_of(engine, [5] * 12, None))
    await engine.stop()
    assert {effort.source for effort in efforts} == {"rapl"}
    assert sum(effort.joules for effort in efforts) == pytest.approx(2 * runner.passes)
    assert engine.load.joules == pytest.approx(2 * runner.passes)
    assert engine.load.energy_source == "rapl"


async def test_an_answer_s_operations_are_those_of_its_tokens(model: DeepseekV3, tmp_path: Path) -> None:
    engine, runner = make_engine(model, Assumed(1.0))
    runner.counter = Powercap(tmp_path / "powercap")
    engine.start()
    effort = await effort_of(engine, list(range(30, 49)), GREEDY)
    vector = await effort_of(engine, list(range(50, 62)), None)
    await engine.stop()
    arithmetic = Arithmetic(model.config)
    prefilled = [arithmetic.chunk(start, min(start + SIZE, 19), last=start == 16) for start in (0, 8, 16)]
    decoded = [decode_flops(model.config, context).total for context in range(20, 25)]
    assert effort.flops == sum(prefilled) + sum(decoded)
    assert vector.flops == arithmetic.chunk(0, 8, last=False) + arithmetic.chunk(8, 12, last=False)


def test_chunks_of_a_prompt_come_to_what_one_pass_would_take(model: DeepseekV3) -> None:
    arithmetic, length = Arithmetic(model.config), 8
    whole = length * prompt_flops(model.config, length).total
    assert arithmetic.chunk(0, length, last=True) == pytest.approx(whole, abs=length)
    assert arithmetic.chunk(0, length, last=False) < whole
    assert arithmetic.chunk(4, length, last=True) < whole


def test_answers_and_metrics_tell_what_they_took_and_a_gateway_keeps_it(
    tiny_folder: Path, tmp_path: Path
) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "seed": 5}
    with ServerProcess("--model", str(tiny_folder), "--watts", "25") as server:
        told = server.post("/v1/chat/completions", body).json()["usage"]
        vector = server.post("/v1/embeddings", {"model": "tiny", "input": ["one", "two"]}).json()["usage"]
        metrics = server.metrics()
        assert told["energy"]["source"] == vector["energy"]["source"] == "estimate"
        joules = told["energy"]["joules"] + vector["energy"]["joules"]
        assert metrics['tidegate_local_energy_joules_total{source="estimate"}'] == pytest.approx(
            joules, abs=1e-5
        )
        assert metrics["tidegate_local_flops_total"] == told["flops"] + vector["flops"]
        assert min(told["flops"], vector["flops"], vector["energy"]["joules"]) > 0

        config = settings("http://127.0.0.1:9", tmp_path / "keys.db")
        config["providers"] = {
            "own": {"preset": "llama.cpp", "base_url": f"{server.url}/v1", "energy": {"*": {"told": True}}}
        }
        config["models"] = {"tiny": {"route": ["own/tiny"]}}
        with (
            gateway(tmp_path, config) as running,
            running.client(CLIENT_KEY) as client,
            running.admin() as admin,
        ):
            for stream in (False, True):
                identity = f"req-{stream}"
                answer = client.post(
                    "/v1/chat/completions",
                    json={**body, "stream": stream},
                    headers={"x-request-id": identity},
                )
                assert answer.status_code == 200, answer.text
                (row,) = eventually(lambda: rows_of(admin, identity))  # noqa: B023 - called at once
                assert row["flops"] == told["flops"]
                assert (row["energy"] > 0, row["measured"]) == (True, False)
                if not stream:
                    assert answer.json()["usage"]["energy"]["joules"] == row["energy"]
                    assert float(answer.headers["x-tidegate-energy-j"]) == row["energy"]
            series = 'tidegate_usage_flops_total{model="tiny",upstream="own"}'
            eventually(lambda: series in client.get("/metrics").text)


def test_a_gateway_takes_the_word_of_the_model_server_that_it_starts(
    bundled: ModelFolder, tmp_path: Path
) -> None:
    body = {"model": "tide", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    config = settings("http://127.0.0.1:9", tmp_path / "keys.db")
    config["providers"]["local"] = {"preset": "local", "watts": 20, "threads": 1}
    config["models"] = {"tide": {"route": ["up/nobody", f"local/{bundled.model_id}"]}}
    with gateway(tmp_path, config) as running, running.client(CLIENT_KEY) as client, running.admin() as admin:

        def answered() -> httpx.Response | None:
            found = client.post("/v1/chat/completions", json=body)
            return found if found.status_code == 200 else None

        answer = eventually(answered, within=_LOADING)
        (row,) = eventually(lambda: rows_of(admin, answer.headers["x-request-id"]))
        told = answer.json()["usage"]
        source = told["energy"]["source"]
        series = f'tidegate_local_energy_joules_total{{provider="local",source="{source}"}}'
        eventually(lambda: series in client.get("/metrics").text)
    assert row["energy"] == told["energy"]["joules"] == float(answer.headers["x-tidegate-energy-j"]) > 0
    assert row["measured"] == (source != "estimate")
    assert (row["flops"], row["cost"], row["upstream"]) == (told["flops"], 0, "local")


def rows_of(admin: Any, identity: str) -> Any:
    return admin.get("/admin/usage/requests", params={"request_id": identity}).json()
