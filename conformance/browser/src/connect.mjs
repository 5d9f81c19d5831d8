// connect-web, with both of its transports: unary and server streaming, as Connect in
// protobuf and JSON and by GET, and as gRPC-Web.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { after, bytesOf, base64Of, codes, difficult, equal, fails } from "./harness.mjs";

export function addConnect(s) {
  const kinds = {
    "connect proto": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true }),
    "connect JSON": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: false, jsonOptions: { registry: s.registry } }),
    "connect GET": (baseUrl) => createConnectTransport({ baseUrl, useHttpGet: true }),
    "connect-web gRPC-Web": (baseUrl) => createGrpcWebTransport({ baseUrl }),
  };
  for (const [kind, transport] of Object.entries(kinds)) {
    addTransport(s, kind, createClient(s.service, transport(s.config.open)), createClient(s.service, transport(s.config.closed)));
  }
}

function addTransport(s, kind, client, closed) {
  const add = (id, run) => s.add(`${kind}: ${id}`, run);
  const info = s.registry.getMessage("google.rpc.ErrorInfo");
  const reasons = (error) => error.findDetails(info).map((detail) => detail.reason);

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
    let header, trailer;
    await client.ask({ text: "a" }, {
      headers: { "x-echo": "one", "x-echo-bin": base64Of([0, 1, 255]), "x-echo-end": "two" },
      onHeader: (h) => (header = h),
      onTrailer: (t) => (trailer = t),
    });
    equal([header.get("x-echo"), trailer.get("x-echo-end")], ["one", "two"], "metadata");
    equal([...bytesOf(header.get("x-echo-bin"))], [0, 1, 255], "binary header");
  });

  add("an error with details", async () => {
    const error = await fails(client.ask({ text: "a", ending: { code: 9, message: difficult, reason: "OUT_OF_STOCK" } }));
    equal([error instanceof ConnectError, error.code, error.rawMessage], [true, Code.FailedPrecondition, difficult], "error");
    equal(reasons(error), ["OUT_OF_STOCK"], "details");
  });

  add("an error with metadata", async () => {
    const error = await fails(client.ask({ text: "a", ending: { code: 5, message: "none" } }, { headers: { "x-echo-end": "two" } }));
    equal([error.code, error.rawMessage, error.metadata.get("x-echo-end")], [Code.NotFound, "none", "two"], "error");
  });

  add("every code", async () => {
    for (const code of Object.keys(codes).map(Number)) {
      const error = await fails(client.ask({ text: "a", ending: { code, message: `code ${code}` } }));
      equal([error.code, error.rawMessage], [code, `code ${code}`], "error");
    }
  });

  add("a deadline that is kept", async () => {
    const { remaining } = await client.ask({ text: "a" }, { timeoutMs: 20_000 });
    equal(remaining > 10_000n && remaining <= 20_000n, true, "the deadline at the backend");
  });

  add("a deadline that is not kept", async () => {
    const name = s.name();
    const error = await fails(client.ask({ text: name, ending: { never: true } }, { timeoutMs: 300 }));
    equal(error.code, Code.DeadlineExceeded, "code");
    await s.gone(name);
  });

  add("cancel", async () => {
    const name = s.name();
    const abort = new AbortController();
    const call = fails(client.ask({ text: name, ending: { never: true } }, { signal: abort.signal }));
    await after(100);
    abort.abort();
    equal((await call).code, Code.Canceled, "code");
    await s.gone(name);
  });

  add("another origin's page is shown nothing", async () => {
    const error = await fails(closed.ask({ text: "a" }));
    equal(error.rawMessage.includes("sluice"), false, `an error of the browser's own making, not ${error}`);
  });

  add("a stream", async () => {
    let header, trailer;
    const numbers = [];
    const stream = client.count({ text: "a", numbers: 5 }, {
      headers: { "x-echo": "one", "x-echo-end": "two" },
      onHeader: (h) => (header = h),
      onTrailer: (t) => (trailer = t),
    });
    for await (const m of stream) {
      numbers.push(m.number);
    }
    equal(numbers, [1, 2, 3, 4, 5], "numbers");
    equal([header.get("x-echo"), trailer.get("x-echo-end")], ["one", "two"], "metadata");
  });

  add("an empty stream", async () => {
    for await (const m of client.count({ text: "a" })) {
      throw new Error(`message ${m.number}`);
    }
  });

  add("a stream of 1,000 messages", async () => {
    let last = 0;
    for await (const m of client.count({ text: "some text to make it longer", numbers: 1000 })) {
      equal(m.number, last + 1, "number");
      last = m.number;
    }
    equal(last, 1000, "the last number");
  });

  add("an error in mid-stream", async () => {
    const numbers = [];
    const error = await fails((async () => {
      for await (const m of client.count({ text: "a", numbers: 3, ending: { code: 10, message: difficult, reason: "RACE" } })) {
        numbers.push(m.number);
      }
    })());
    equal([numbers, error.code, error.rawMessage, reasons(error)], [[1, 2, 3], Code.Aborted, difficult, ["RACE"]], "error");
  });

  add("a stream that is cancelled", async () => {
    const name = s.name();
    const abort = new AbortController();
    const error = await fails((async () => {
      for await (const m of client.count({ text: name, numbers: 1, ending: { never: true } }, { signal: abort.signal })) {
        equal(m.number, 1, "number");
        abort.abort();
      }
    })());
    equal(error.code, Code.Canceled, "code");
    await s.gone(name);
  });

  add("a stream whose deadline is over", async () => {
    const name = s.name();
    const error = await fails((async () => {
      for await (const m of client.count({ text: name, numbers: 1, ending: { never: true } }, { timeoutMs: 300 })) {
        equal(m.number, 1, "number");
      }
    })());
    equal(error.code, Code.DeadlineExceeded, "code");
    await s.gone(name);
  });

  add("each message as it comes", async () => {
    const name = s.name();
    const numbers = [];
    for await (const m of client.count({ text: name, numbers: 4, stepwise: true })) {
      numbers.push(m.number);
      await client.ask({ text: `seen ${name} ${m.number}` });
    }
    equal(numbers, [1, 2, 3, 4], "numbers");
  });
}
