"""A chat endpoint on this machine that answers, delays, refuses and breaks off as it is told."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, finish="stop", tokens=(10, 5), model="served"):
    """A chat completion as the OpenAI API writes it."""
    reply = {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
    }
    if tokens is not None:
        reply["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return reply


class ChatServer(ThreadingHTTPServer):
    """`answer(body)` gives a text, a dict (the whole reply), (status, headers, bytes), "hang up" or ("wait", seconds)."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.requests, self.under_way, self.most, self.lock = answer, [], 0, 0, threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass

    def stop(self):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append((self.path, dict(self.headers), body, time.monotonic()))
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        try:
            self.reply(server.answer(body))
        finally:
            with server.lock:
                server.under_way -= 1

    def reply(self, made):
        if made == "hang up":
            self.close_connection = True
            return
        status, headers = 200, {}
        if isinstance(made, tuple) and made[0] == "wait":
            time.sleep(made[1])
            made = "late"
        if isinstance(made, tuple):
            status, headers, made = made
        if isinstance(made, str):
            made = completion(made, model=f"served-{self.server.requests[-1][2]['model']}")
        content = made if isinstance(made, bytes) else json.dumps(made).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
