"""A server of chats on a real port."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Script:
    """A server that answers with the statuses of its list, then well; it keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[dict[str, object]] = []
        self.owner = "somebody"
        self.key: str | None = None
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if script.key is not None and self.headers["Authorization"] != f"Bearer {script.key}":
                    self.say(401, {"error": {"message": "an API key is needed"}})
                    return
                self.say(200, {"data": [{"id": "llava", "owned_by": script.owner}]})

            def do_POST(self) -> None:
                script.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status = script.statuses.pop(0) if script.statuses else 200
                if status != 200:
                    self.say(status, {"error": {"message": "no, because"}})
                    return
                answer = {"message": {"content": " A dog. "}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 50, "completion_tokens": 3}
                self.say(200, {"choices": [answer], "usage": usage})

            def say(self, status: int, body: object) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nobody needs to read it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
