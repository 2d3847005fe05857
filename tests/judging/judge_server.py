"""A judge on a real port."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JudgeServer:
    """Speaks OpenAI's chat API; `reply` turns a prompt into words, a status, or a dead line (None)."""

    def __init__(self) -> None:
        self.reply: Callable[[str], str | int | None] = lambda prompt: "Fine. Score: 4"
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                served.asked.append({"path": self.path, **body})
                served.headers.append(dict(self.headers))
                told = served.reply(body["messages"][-1]["content"])
                if told is None:
                    served.released.wait(5)
                    return
                status = told if isinstance(told, int) else 200
                message = {"role": "assistant", "content": told}
                answer = {"model": body["model"], "choices": [{"message": message}]}
                content = json.dumps(answer if status == 200 else {"error": {"message": "no"}}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                """Quietly."""

        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
