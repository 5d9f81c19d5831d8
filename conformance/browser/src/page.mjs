// What runs in the browser. The driver calls run with {open, closed}: the gateway's
// origins under names of routes that let this page in, and that do not.
import { addConnect } from "./connect.mjs";
import { addGrpcWeb } from "./grpc_web.mjs";
import { newSuite } from "./harness.mjs";
import { addREST } from "./rest.mjs";
import { addSocket } from "./socket.mjs";

globalThis.run = async (config) => {
  const suite = await newSuite(config);
  for (const add of [addGrpcWeb, addConnect, addSocket, addREST]) {
    add(suite);
  }
  return suite.run();
};
