// Runs the page in a real browser and prints how each case ended, as JSON.
//
//	node driver.mjs bundle DIR          the page's script, into DIR
//	node driver.mjs run BROWSER CONFIG  CONFIG is {page, open, closed}, origins
import { chromium } from "playwright-core";
import { build } from "esbuild";

const [verb, ...args] = process.argv.slice(2);

if (verb === "bundle") {
  await build({
    entryPoints: [new URL("src/page.mjs", import.meta.url).pathname],
    outfile: `${args[0]}/page.js`,
    bundle: true,
    format: "iife",
    logLevel: "error",
  });
} else if (verb === "run") {
  const config = JSON.parse(args[1]);
  const browser = await chromium.launch({
    executablePath: args[0],
    // The names are those of the routes; a container has no room for the sandbox and
    // little for shared memory.
    args: ["--host-resolver-rules=MAP *.test 127.0.0.1", "--no-sandbox", "--disable-dev-shm-usage"],
  });
  try {
    const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
    page.on("console", (message) => console.error("page:", message.text()));
    page.on("pageerror", (error) => console.error("page:", error));
    await page.goto(config.page);
    const results = await page.evaluate((config) => globalThis.run(config), config);
    process.stdout.write(JSON.stringify(results));
  } finally {
    await browser.close();
  }
} else {
  throw new Error(`unknown verb ${verb}`);
}
