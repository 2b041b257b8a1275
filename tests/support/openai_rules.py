"""What the real APIs refuse in a history: the rules of the local model server, and of the prompt's property
tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHAT_PARTS = {"text", "image_url", "file", "input_audio"}
_RESPONSES_PARTS = {"input_text", "input_image", "input_file"}


def chat_fault(body: Mapping[str, Any]) -> str | None:
    """What is wrong with a chat completions request, None for nothing.

    After a message with tool calls stand exactly their results, one each; there are no other results; no
    message is empty; the roles are known; call ids are not used twice; arguments are JSON objects.
    """
    messages: list[dict[str, Any]] | None = body.get("messages")
    if not messages:
        return "messages must be a list that is not empty"
    waiting: list[str] = []
    used: set[str] = set()
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role, content = message.get("role"), message.get("content")
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                return f"{place}: a tool message must answer a tool call right before it"
            waiting.remove(message["tool_call_id"])
            if not isinstance(content, str):
                return f"{place}: the content of a tool message is a string"
            continue
        if waiting:
            return f"{place}: tool calls {waiting} were not followed by their results"
        if role not in ("system", "developer", "user", "assistant"):
            return f"{place}: unknown role {role!r}"
        calls = message.get("tool_calls")
        if calls is not None and (role != "assistant" or not calls):
            return f"{place}: tool_calls is a list that is not empty, of an assistant"
        if not calls and _is_empty(content):
            return f"{place}: empty message"
        if calls and content is not None and _is_empty(content):
            return f"{place}: empty content"
        if fault := _part_fault(content, _CHAT_PARTS):
            return f"{place}: {fault}"
        for call in calls or ():
            function = call["function"]
            if fault := _call_fault(call.get("id"), function.get("name"), function.get("arguments"), used):
                return f"{place}: {fault}"
            waiting.append(call["id"])
    return f"tool calls {waiting} were not followed by their results" if waiting else None


def responses_fault(body: Mapping[str, Any]) -> str | None:
    """What is wrong with a responses request, None for nothing: each function_call has exactly one output
    behind it.
    """
    items: list[dict[str, Any]] | None = body.get("input")
    if not items:
        return "input must be a list that is not empty"
    waiting: set[str] = set()
    used: set[str] = set()
    for number, item in enumerate(items):
        place = f"input[{number}]"
        match item.get("type", "message"):
            case "message":
                if item.get("role") not in ("system", "developer", "user", "assistant"):
                    return f"{place}: unknown role {item.get('role')!r}"
                content = item.get("content")
                if _is_empty(content):
                    return f"{place}: empty message"
                if fault := _part_fault(content, _RESPONSES_PARTS):
                    return f"{place}: {fault}"
                if waiting:
                    return f"{place}: No tool output found for function calls {sorted(waiting)}"
            case "function_call":
                if fault := _call_fault(item.get("call_id"), item.get("name"), item.get("arguments"), used):
                    return f"{place}: {fault}"
                waiting.add(item["call_id"])
            case "function_call_output":
                if item.get("call_id") not in waiting:
                    return f"{place}: No tool call found for function call output {item.get('call_id')}"
                waiting.remove(item["call_id"])
                if not isinstance(item.get("output"), str):
                    return f"{place}: output is a string"
            case other:
                return f"{place}: unknown type {other!r}"
    return f"No tool output found for function calls {sorted(waiting)}" if waiting else None


def _is_empty(content: object) -> bool:
    return not content.strip() if isinstance(content, str) else not content


def _part_fault(content: str | list[dict[str, Any]] | None, kinds: set[str]) -> str | None:
    for part in content if isinstance(content, list) else ():
        if part.get("type") not in kinds:
            return f"unknown part {part.get('type')!r}"
        if "text" in part and not part["text"].strip():
            return "empty text part"
    return None


def _call_fault(call_id: object, name: object, arguments: object, used: set[str]) -> str | None:
    if not isinstance(call_id, str) or not _CALL_ID.fullmatch(call_id) or call_id in used:
        return f"invalid or repeated call id {call_id!r}"
    used.add(call_id)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"invalid function name {name!r}"
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else None
    except ValueError:
        parsed = None
    return None if isinstance(parsed, dict) else "arguments must be a JSON object as text"
