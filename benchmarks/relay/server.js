// What a team writes by hand instead of Holdfast: the model's deltas, passed on to a Socket.IO room. Nothing is kept.
//
//     node server.js MODEL_URL

import { createServer } from "node:http";
import { Server } from "socket.io";

const listening = createServer();
const io = new Server(listening);

async function relay(room, content) {
  const body = JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content }] });
  const headers = { "content-type": "application/json", authorization: "Bearer k" };
  const response = await fetch(`${process.argv[2]}/chat/completions`, { method: "POST", headers, body });
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of response.body) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const delta = JSON.parse(line.slice(6)).choices[0]?.delta.content;
      if (delta) io.to(room).emit("delta", delta);
    }
  }
}

io.on("connection", (socket) => {
  socket.on("join", (room) => socket.join(room));
  socket.on("send", (room, content) => relay(room, content).catch((error) => io.to(room).emit("failed", `${error}`)));
});
listening.listen(0, "127.0.0.1", () => console.log(`ready ${listening.address().port}`));
