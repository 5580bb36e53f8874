"""Run a command while a service on this machine takes what it sends by POST.

usage: with_http.py COMMAND ARG...

URL among the arguments is replaced by the service's address. The service is a process that reads each request and
answers 204. Its exit code is that of the command.
"""

import asyncio
import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Service(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            at = head.index(b"content-length:") + len(b"content-length:")
            whole = end + 4 + int(head[at:].split(b"\r\n", 1)[0])
            if len(self.received) < whole:
                return
            self.received = self.received[whole:]
            self.transport.write(ANSWER)


def serve(port: Connection) -> None:
    async def until_ended() -> None:
        server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(until_ended())


if __name__ == "__main__":
    receiver, sender = multiprocessing.Pipe(duplex=False)
    service = multiprocessing.Process(target=serve, args=(sender,), daemon=True)
    service.start()
    url = f"http://127.0.0.1:{receiver.recv()}/events"
    code = subprocess.call([url if word == "URL" else word for word in sys.argv[1:]])
    service.terminate()
    sys.exit(code)
