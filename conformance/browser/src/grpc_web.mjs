// The official grpc-web client: unary and server streaming, text and binary. It reads
// binary streams only when they are complete.
import grpcWeb from "grpc-web";
import { after, base64Of, bytesOf, codes, difficult, equal, fails } from "./harness.mjs";

const { GrpcWebClientBase, MethodDescriptor, MethodType } = grpcWeb;

export function addGrpcWeb(s) {
  for (const format of ["text", "binary"]) {
    addFormat(s, format, new Client(s, format));
  }
}

class Client {
  constructor(s, format) {
    this.s = s;
    this.base = new GrpcWebClientBase({ format });
  }

  method(name, kind, path = `/probe.v1.Probe/${name}`) {
    return new MethodDescriptor(
      path, kind, Object, Object,
      (init) => this.s.encode(`probe.v1.${name}Request`, init),
      (bytes) => this.s.decode(`probe.v1.${name}Response`, bytes),
    );
  }

  // ask returns a promise, as generated code does.
  ask(init, metadata = {}, options = {}, host = this.s.config.open) {
    return this.base.unaryCall(`${host}/probe.v1.Probe/Ask`, init, metadata, this.method("Ask", MethodType.UNARY), options);
  }

  askAt(path) {
    return this.base.unaryCall(this.s.config.open + path, { text: "a" }, {}, this.method("Ask", MethodType.UNARY, path));
  }

  // asked returns all that the call says.
  asked(init, metadata = {}) {
    return new Promise((resolve) => {
      const seen = { header: {}, status: undefined };
      const call = this.base.rpcCall(`${this.s.config.open}/probe.v1.Probe/Ask`, init, metadata, this.method("Ask", MethodType.UNARY), (error, response) => {
        Object.assign(seen, { error, response });
        setTimeout(() => resolve(seen)); // the status comes in the same turn
      });
      call.on("metadata", (m) => Object.assign(seen.header, m));
      call.on("status", (status) => (seen.status = status));
    });
  }

  // count returns a stream, and all that it says, when it is over, as done.
  count(init, metadata = {}, each = () => {}) {
    const seen = { numbers: [], header: {} };
    const call = this.base.serverStreaming(`${this.s.config.open}/probe.v1.Probe/Count`, init, metadata, this.method("Count", MethodType.SERVER_STREAMING));
    const done = new Promise((resolve) => {
      call.on("data", (m) => {
        seen.numbers.push(m.number);
        each(m);
      });
      call.on("metadata", (m) => Object.assign(seen.header, m));
      call.on("status", (status) => (seen.status = status));
      call.on("error", (error) => {
        seen.error = error;
        setTimeout(() => resolve(seen));
      });
      call.on("end", () => setTimeout(() => resolve(seen)));
    });
    return { call, done };
  }
}

function addFormat(s, format, client) {
  const add = (id, run) => s.add(`grpc-web ${format}: ${id}`, run);

  add("unary", async () => {
    equal((await client.ask({ text: difficult })).text, difficult, "text");
  });

  add("empty messages", async () => {
    equal((await client.ask({})).text, "", "text");
  });

  add("unary of 1 MB", async () => {
    const { text } = await client.ask({ text: "0123456789", size: 1_000_000 });
    equal([text.length, text.slice(-10)], [1_000_000, "0123456789"], "text");
  });

  add("metadata and trailers", async () => {
    const seen = await client.asked({ text: "a" }, { "x-echo": "one", "x-echo-bin": base64Of([0, 1, 255]), "x-echo-end": "two" });
    equal(seen.error, null, "error");
    equal(seen.header["x-echo"], "one", "header");
    equal([...bytesOf(seen.header["x-echo-bin"].padEnd(4, "="))], [0, 1, 255], "binary header");
    equal([seen.status.code, seen.status.metadata["x-echo-end"]], [0, "two"], "status");
  });

  add("an error with details", async () => {
    const error = await fails(client.ask({ text: "a", ending: { code: 9, message: difficult, reason: "OUT_OF_STOCK" } }));
    equal([error.code, error.message], [9, difficult], "error");
    equal(s.reasonOf(bytesOf(error.metadata["grpc-status-details-bin"])), "OUT_OF_STOCK", "reason");
  });

  add("an error with metadata", async () => {
    const error = await fails(client.ask({ text: "a", ending: { code: 5, message: "none" } }, { "x-echo-end": "two" }));
    equal([error.code, error.message, error.metadata["x-echo-end"]], [5, "none", "two"], "error");
  });

  add("every code", async () => {
    for (const code of Object.keys(codes).map(Number)) {
      const error = await fails(client.ask({ text: "a", ending: { code, message: `code ${code}` } }));
      equal([error.code, error.message], [code, `code ${code}`], "error");
    }
  });

  add("a deadline that is kept", async () => {
    const { remaining } = await client.ask({ text: "a" }, { deadline: String(Date.now() + 20_000) });
    equal(remaining > 10_000n && remaining <= 20_000n, true, "the deadline at the backend");
  });

  add("a deadline that is not kept", async () => {
    const name = s.name();
    const error = await fails(client.ask({ text: name, ending: { never: true } }, { deadline: String(Date.now() + 300) }));
    equal(error.code, 4, "code");
    await s.gone(name);
  });

  add("cancel", async () => {
    const name = s.name();
    const abort = new AbortController();
    const call = fails(client.ask({ text: name, ending: { never: true } }, {}, { signal: abort.signal }));
    await after(100);
    abort.abort();
    await call;
    await s.gone(name);
  });

  add("a method that nobody has", async () => {
    const error = await fails(client.askAt("/probe.v1.Probe/Missing"));
    equal(error.code, 12, "code");
  });

  add("a backend that is not up", async () => {
    const error = await fails(client.askAt("/dead.v1.Dead/Ask"));
    equal([error.code, error.message.startsWith("sluice: ")], [14, true], `the gateway's own error ${error}`);
  });

  add("another origin's page is shown nothing", async () => {
    const error = await fails(client.ask({ text: "a" }, {}, {}, s.config.closed));
    equal(error.code !== 0 && !error.message.includes("sluice"), true, "an error of the browser's own making");
  });

  add("a stream", async () => {
    const { done } = client.count({ text: "a", numbers: 5 }, { "x-echo": "one", "x-echo-end": "two" });
    const seen = await done;
    equal([seen.error, seen.numbers], [undefined, [1, 2, 3, 4, 5]], "numbers");
    equal([seen.header["x-echo"], seen.status.code, seen.status.metadata["x-echo-end"]], ["one", 0, "two"], "metadata");
  });

  add("an empty stream", async () => {
    const seen = await client.count({ text: "a" }).done;
    equal([seen.error, seen.numbers], [undefined, []], "numbers");
  });

  add("a stream of 1,000 messages", async () => {
    const seen = await client.count({ text: "some text to make it longer", numbers: 1000 }).done;
    equal([seen.error, seen.numbers.length, seen.numbers.at(-1)], [undefined, 1000, 1000], "numbers");
  });

  add("an error in mid-stream", async () => {
    const seen = await client.count({ text: "a", numbers: 3, ending: { code: 10, message: difficult, reason: "RACE" } }).done;
    equal(seen.numbers, [1, 2, 3], "numbers");
    equal([seen.error.code, seen.error.message], [10, difficult], "error");
    equal(s.reasonOf(bytesOf(seen.error.metadata["grpc-status-details-bin"])), "RACE", "reason");
  });

  add("a stream that is cancelled", async () => {
    const name = s.name();
    const { call } = client.count({ text: name, numbers: 1, ending: { never: true } });
    await after(200);
    call.cancel();
    await s.gone(name);
  });

  if (format === "text") {
    add("each message as it comes", async () => {
      const name = s.name();
      const seen = await client.count({ text: name, numbers: 4, stepwise: true }, {}, (m) => {
        client.ask({ text: `seen ${name} ${m.number}` });
      }).done;
      equal([seen.error, seen.numbers], [undefined, [1, 2, 3, 4]], "numbers");
    });
  }
}
