import asyncio

from gateway.model_reports import ModelReports
from gateway.providers.transport import EnvironmentTransport
from gateway.settings import default_settings
from gateway.settings.accounts import LOCAL


async def speak_nonsense(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"nonsense\r\n\r\n")
    writer.close()


async def test_a_model_server_that_does_not_speak_http_is_not_up():
    server = await asyncio.start_server(speak_nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = EnvironmentTransport()
    urls = {LOCAL: f"http://127.0.0.1:{port}/v1"}
    reports = ModelReports(default_settings, lambda: urls, transport)
    assert await reports.metrics() == {LOCAL: None}
    await transport.aclose()
    server.close()
