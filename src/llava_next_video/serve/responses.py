"""Answers in the words of the Responses API: text out, nothing stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import count

from llava_next_video.serve.account import Account
from llava_next_video.serve.bridge import Piece
from llava_next_video.serve.events import event
from llava_next_video.serve.protocol import ResponsesRequest
from llava_next_video.serve.refusals import refusal_of
from llava_next_video.serve.shapes import Json, gathered


def response(account: Account, request: ResponsesRequest, text: str | None, finish: str | None) -> Json:
    """The response object; without a `finish` it is still being written."""
    usage = account.usage
    details = {"cached_tokens": account.cached_tokens, "visual_tokens": account.visual_tokens}
    cut = finish == "length"
    status = "in_progress" if finish is None else "incomplete" if cut else "completed"
    counted = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": details,
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
    return {
        "id": f"resp_{account.id}",
        "object": "response",
        "created_at": account.created,
        "model": account.model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": request.instructions,
        "metadata": request.metadata or {},
        "output": [] if text is None else [message(account, text, "incomplete" if cut else "completed")],
        "parallel_tool_calls": False,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_output_tokens,
        "tool_choice": "none",
        "tools": [],
        "usage": counted if finish is not None else None,
        "media": account.media,
    }


def message(account: Account, text: str | None, status: str) -> Json:
    """The one item of the output; without `text` it has no part yet."""
    return {
        "id": f"msg_{account.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [] if text is None else [part(text)],
    }


def part(text: str) -> Json:
    """The one part of the item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


async def whole(pieces: AsyncGenerator[Piece], account: Account, request: ResponsesRequest) -> Json:
    """A response at once."""
    (answer,) = await gathered(pieces)
    return response(account, request, answer.text, answer.finish)


async def events(
    pieces: AsyncGenerator[Piece], account: Account, request: ResponsesRequest
) -> AsyncGenerator[str]:
    """A response while it is written; an error on the way is the event that the API has for it."""
    numbers = count()

    def tell(kind: str, **more: object) -> str:
        return event({"type": kind, "sequence_number": next(numbers), **more}, kind)

    where = {"item_id": f"msg_{account.id}", "output_index": 0, "content_index": 0}
    yield tell("response.created", response=response(account, request, None, None))
    yield tell("response.in_progress", response=response(account, request, None, None))
    yield tell("response.output_item.added", output_index=0, item=message(account, None, "in_progress"))
    yield tell("response.content_part.added", **where, part=part(""))
    text, finish = "", "stop"
    try:
        async for piece in pieces:
            text += piece.text
            finish = piece.finish or finish
            if piece.text:
                yield tell("response.output_text.delta", **where, delta=piece.text, logprobs=[])
    except Exception as error:  # the outermost wall of one request
        refusal = refusal_of(error)
        yield tell("error", code=refusal.code, message=refusal.message, param=refusal.param)
        return
    last = response(account, request, text, finish)
    done = message(account, text, "incomplete" if finish == "length" else "completed")
    yield tell("response.output_text.done", **where, text=text, logprobs=[])
    yield tell("response.content_part.done", **where, part=part(text))
    yield tell("response.output_item.done", output_index=0, item=done)
    yield tell("response.incomplete" if finish == "length" else "response.completed", response=last)
