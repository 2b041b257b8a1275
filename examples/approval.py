"""A tool that waits for a person: `holdfast serve examples.approval:server`, then answer it from any device."""

from holdfast.server import Run, Server

server = Server()
_FILES = {"draft.txt": "Dear all,", "notes.txt": "Lisbon, three days"}


@server.agent("janitor")
async def janitor(run: Run) -> None:
    """Offers to delete a file, and does so only after somebody has agreed."""
    name = next(iter(_FILES), None)
    if name is None:
        await run.text("There is nothing left to delete.")
        return
    call_id = await run.tool_call("delete_file", {"name": name})
    answer = await run.ask("approval", call_id=call_id, name="delete_file", input={"name": name}, expires_ms=60_000)
    if answer.outcome == "answered" and answer.value is True:
        del _FILES[name]
        await run.tool_result(call_id, output={"deleted": name})
        await run.text(f"{name} is gone; {answer.by} agreed.")
    else:
        await run.tool_result(call_id, error="nobody agreed")
        await run.text(f"{name} stays.")
