// What the cases share: how one is run, what is expected, and the messages, whose
// types come from the descriptors that the page's own server hands out.
import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, anyUnpack } from "@bufbuild/protobuf/wkt";

// caseLimit is how long one case may take, in milliseconds.
const caseLimit = 10_000;

export class Suite {
  constructor(config, registry) {
    this.config = config;
    this.registry = registry;
    this.service = registry.getService("probe.v1.Probe");
    this.cases = [];
    this.named = 0;
  }

  add(id, run) {
    this.cases.push({ id, run });
  }

  // name is one that no other RPC of this run has.
  name() {
    this.named++;
    return `rpc-${this.named}`;
  }

  message(type, init = {}) {
    return create(this.registry.getMessage(type), init);
  }

  encode(type, init) {
    const desc = this.registry.getMessage(type);
    return toBinary(desc, create(desc, init));
  }

  decode(type, bytes) {
    return fromBinary(this.registry.getMessage(type), bytes);
  }

  // reasonOf returns the reason of the ErrorInfo in a google.rpc.Status.
  reasonOf(bytes) {
    const status = this.decode("google.rpc.Status", bytes);
    for (const detail of status.details) {
      const message = anyUnpack(detail, this.registry);
      if (message?.$typeName === "google.rpc.ErrorInfo") {
        return message.reason;
      }
    }
    return undefined;
  }

  // gone waits until the backend has seen the RPC of that name cancelled.
  async gone(name) {
    const url = `${this.config.open}/probe/gone%20${name}`;
    const answer = await (await fetch(url)).json();
    equal(answer.text, `gone ${name}`, "the backend saw the RPC cancelled");
  }

  async run() {
    const results = [];
    for (const { id, run } of this.cases) {
      let timer;
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not done after ${caseLimit} ms`)), caseLimit);
      });
      try {
        await Promise.race([run(), late]);
        results.push({ id });
      } catch (error) {
        results.push({ id, failure: String(error?.stack ?? error) });
      }
      clearTimeout(timer);
    }
    return results;
  }
}

export async function newSuite(config) {
  const bytes = new Uint8Array(await (await fetch("/descriptors.bin")).arrayBuffer());
  return new Suite(config, createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes)));
}

export function equal(got, want, what) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)];
  if (a !== b) {
    throw new Error(`${what}: got ${a?.slice(0, 300)}, want ${b?.slice(0, 300)}`);
  }
}

// fails returns what the promise is rejected with.
export async function fails(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`no error, but ${JSON.stringify(value, (_, v) => (typeof v === "bigint" ? String(v) : v))}`);
}

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

export function base64Of(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

export const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// What is hard to carry: more than ASCII, and what the protocols escape.
export const difficult = "100% größer – 😀\n\"quoted\"";

// codes are gRPC's, but OK, with the HTTP status that says each of them.
export const codes = {
  1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429,
  9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
};

