// improbable-eng's client over its WebSocket transport: the streams that neither
// gRPC-Web nor Connect have in a browser.
import { grpc } from "@improbable-eng/grpc-web";
import { bytesOf, difficult, equal } from "./harness.mjs";

export function addSocket(s) {
  const add = (id, run) => s.add(`websocket: ${id}`, run);

  // method describes one to the client, which asks messages to encode themselves.
  const method = (name, requestStream, responseStream) => ({
    methodName: name,
    service: { serviceName: "probe.v1.Probe" },
    requestStream,
    responseStream,
    requestType: Object,
    responseType: { deserializeBinary: (bytes) => s.decode(`probe.v1.${name}Response`, bytes) },
  });

  // open begins an RPC; done tells all that it said.
  const open = (name, responseStream, { host = s.config.open, metadata = {}, each = () => {} } = {}) => {
    const call = grpc.client(method(name, true, responseStream), { host, transport: grpc.WebsocketTransport() });
    const seen = { messages: [] };
    const done = new Promise((resolve) => {
      call.onHeaders((header) => (seen.header = header));
      call.onMessage((m) => {
        seen.messages.push(m);
        each(m, seen.messages.length);
      });
      call.onEnd((code, message, trailers) => resolve(Object.assign(seen, { code, message, trailers })));
    });
    call.start(new grpc.Metadata(metadata));
    const send = (init) => call.send({ serializeBinary: () => s.encode(`probe.v1.${name}Request`, init) });
    return { call, send, done };
  };

  add("client streaming", async () => {
    const { call, send, done } = open("Collect", false, { metadata: { "x-echo": "one", "x-echo-end": "two" } });
    ["a", difficult, ""].forEach((text) => send({ text }));
    call.finishSend();
    const seen = await done;
    equal([seen.code, seen.messages[0]?.texts], [0, ["a", difficult, ""]], "texts");
    equal([seen.header.get("x-echo"), seen.trailers.get("x-echo-end")], [["one"], ["two"]], "metadata");
  });

  add("client streaming, an error with details", async () => {
    const { send, call, done } = open("Collect", false);
    send({ text: "a", ending: { code: 9, message: difficult, reason: "OUT_OF_STOCK" } });
    call.finishSend();
    const seen = await done;
    equal([seen.code, seen.message], [9, difficult], "error");
    const [details] = seen.trailers.get("grpc-status-details-bin");
    equal(s.reasonOf(bytesOf(details)), "OUT_OF_STOCK", "reason");
  });

  add("both ways, each message as it comes", async () => {
    let send, call;
    const chat = open("Chat", true, {
      each: (m, n) => (n < 5 ? send({ text: `${m.text}!` }) : call.finishSend()),
    });
    ({ send, call } = chat);
    send({ text: "a" });
    const seen = await chat.done;
    equal([seen.code, seen.messages.map((m) => m.text)], [0, ["a", "a!", "a!!", "a!!!", "a!!!!"]], "texts");
  });

  add("both ways, 1 MB", async () => {
    const { send, call, done } = open("Chat", true);
    const text = "0123456789".repeat(100_000);
    send({ text });
    call.finishSend();
    const seen = await done;
    equal([seen.code, seen.messages[0]?.text.length], [0, text.length], "text");
  });

  add("both ways, an error in mid-stream", async () => {
    const { send, done } = open("Chat", true);
    send({ text: "a" });
    send({ text: "b", ending: { code: 10, message: difficult } });
    const seen = await done;
    equal([seen.messages.map((m) => m.text), seen.code, seen.message], [["a"], 10, difficult], "error");
  });

  add("cancel", async () => {
    const name = s.name();
    const { send, call } = open("Chat", true, { each: () => call.close() });
    send({ text: name });
    await s.gone(name);
  });

  add("a backend that is not up", async () => {
    const seen = await new Promise((resolve) => {
      const call = grpc.client({ ...method("Chat", true, true), service: { serviceName: "dead.v1.Dead" } },
        { host: s.config.open, transport: grpc.WebsocketTransport() });
      call.onEnd((code, message) => resolve({ code, message }));
      call.start();
      call.finishSend();
    });
    equal([seen.code, seen.message.startsWith("sluice: ")], [14, true], `the gateway's own error ${seen.code} ${seen.message}`);
  });

  add("another origin's page gets no connection", async () => {
    const { send, done } = open("Chat", true, { host: s.config.closed });
    send({ text: "a" });
    const seen = await done;
    equal([seen.code !== 0, seen.messages.length], [true, 0], "refused");
  });
}
