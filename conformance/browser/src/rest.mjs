// Plain fetch: REST by annotation and by the method's name, streams as lines and as
// events.
import { after, codes, difficult, equal, fails } from "./harness.mjs";

export function addREST(s) {
  const add = (id, run) => s.add(`fetch: ${id}`, run);
  const open = s.config.open;
  const json = { "content-type": "application/json" };

  const post = (path, body, headers = {}, more = {}) =>
    fetch(open + path, { method: "POST", headers: { ...json, ...headers }, body: JSON.stringify(body), ...more });

  // lines reads a stream of JSON lines.
  async function* lines(response) {
    let text = "";
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      text += piece;
      for (let end; (end = text.indexOf("\n")) >= 0; text = text.slice(end + 1)) {
        if (text.slice(0, end).trim()) {
          yield JSON.parse(text.slice(0, end));
        }
      }
    }
  }

  add("GET by its path", async () => {
    const inPath = "100% größer – 😀 a/b?c#d";
    const response = await fetch(`${open}/probe/${encodeURIComponent(inPath)}`);
    equal([response.status, (await response.json()).text], [200, inPath], "text");
  });

  add("GET with parameters", async () => {
    const { text } = await (await fetch(`${open}/probe/ab?size=5`)).json();
    equal(text, "ababa", "text");
  });

  add("POST by its path", async () => {
    equal((await (await post("/probe", { text: difficult })).json()).text, difficult, "text");
  });

  add("POST by the method's name", async () => {
    equal((await (await post("/probe.v1.Probe/Ask", { text: difficult })).json()).text, difficult, "text");
  });

  add("metadata and trailers", async () => {
    const response = await post("/probe", { text: "a" }, { "x-echo": "one" });
    equal(response.headers.get("x-echo"), "one", "header");
  });

  add("an error with details", async () => {
    const response = await post("/probe", { text: "a", ending: { code: 9, message: difficult, reason: "OUT_OF_STOCK" } });
    const error = await response.json();
    equal([response.status, error.code, error.message], [400, 9, difficult], "error");
    equal([error.details[0]["@type"], error.details[0].reason], ["type.googleapis.com/google.rpc.ErrorInfo", "OUT_OF_STOCK"], "details");
  });

  add("every code", async () => {
    for (const [code, status] of Object.entries(codes)) {
      const response = await post("/probe", { text: "a", ending: { code: Number(code), message: "why" } });
      equal([response.status, (await response.json()).code], [status, Number(code)], "error");
    }
  });

  add("a field that is not there", async () => {
    const response = await post("/probe", { txt: "a" });
    const error = await response.json();
    equal([response.status, error.code, error.message.includes("txt")], [400, 3, true], "error");
  });

  add("cancel", async () => {
    const name = s.name();
    const abort = new AbortController();
    const call = fails(post("/probe", { text: name, ending: { never: true } }, {}, { signal: abort.signal }));
    await after(100);
    abort.abort();
    equal((await call).name, "AbortError", "error");
    await s.gone(name);
  });

  add("another origin's page is shown nothing", async () => {
    equal((await fails(fetch(`${s.config.closed}/probe/a`))).name, "TypeError", "error");
    equal((await fails(fetch(`${s.config.closed}/probe`, { method: "POST", headers: json, body: "{}" }))).name, "TypeError", "error");
  });

  add("a stream of lines, each as it comes", async () => {
    const name = s.name();
    const response = await fetch(`${open}/probe/${name}/numbers?numbers=4&stepwise=true`, { headers: { accept: "application/x-ndjson" } });
    const numbers = [];
    for await (const m of lines(response)) {
      numbers.push(m.number);
      await fetch(`${open}/probe/seen%20${name}%20${m.number}`);
    }
    equal(numbers, [1, 2, 3, 4], "numbers");
  });

  add("an error in mid-stream", async () => {
    const response = await post("/probe.v1.Probe/Count", { text: "a", numbers: 2, ending: { code: 10, message: difficult } });
    const seen = [];
    for await (const m of lines(response)) {
      seen.push(m);
    }
    const error = seen.at(-1).error;
    equal([seen.length, error?.code, error?.message], [3, 10, difficult], `the last line of ${JSON.stringify(seen)}`);
  });

  add("a stream of events", async () => {
    const events = new EventSource(`${open}/probe/a/numbers?numbers=3`);
    const numbers = [];
    await new Promise((resolve, reject) => {
      events.onmessage = (event) => {
        numbers.push(JSON.parse(event.data).number);
        if (numbers.length === 3) {
          resolve();
        }
      };
      events.onerror = () => reject(new Error(`the events ended after ${numbers}`));
    });
    events.close();
    equal(numbers, [1, 2, 3], "numbers");
  });

  add("lines to the backend", async () => {
    const body = ["a", difficult].map((text) => `${JSON.stringify({ text })}\n`).join("");
    const response = await fetch(`${open}/probe:collect`, { method: "POST", headers: { "content-type": "application/x-ndjson" }, body });
    equal((await response.json()).texts, ["a", difficult], "texts");
  });
}
