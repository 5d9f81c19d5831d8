// Runs the page in a real browser and prints how each case ended, as JSON.
//
//	node driver.mjs bundle DIR          the page's script, into DIR
//	node driver.mjs run BROWSER CONFIG  CONFIG is {page, open, closed}, origins
//	node driver.mjs script FILE OUT     a script of the documents, as a page OUT.html
//	node driver.mjs open BROWSER URL    opens it and prints its first line
import { chromium } from "playwright-core";
import { build } from "esbuild";
import { basename } from "node:path";
import { writeFileSync } from "node:fs";

const [verb, ...args] = process.argv.slice(2);

if (verb === "bundle") {
  await build({
    entryPoints: [new URL("src/page.mjs", import.meta.url).pathname],
    outfile: `${args[0]}/page.js`,
    bundle: true,
    format: "iife",
    logLevel: "error",
  });
} else if (verb === "script") {
  await build({ entryPoints: [args[0]], outfile: `${args[1]}.js`, bundle: true, format: "esm", target: "es2022", logLevel: "error" });
  writeFileSync(`${args[1]}.html`, `<!doctype html><meta charset=utf-8><script type=module src=${basename(args[1])}.js></script>\n`);
} else if (verb === "open") {
  const browser = await launch(args[0]);
  try {
    const page = await browser.newPage();
    const line = new Promise((resolve, reject) => {
      page.on("console", (message) => (message.type() === "log" ? resolve(message.text()) : console.error("page:", message.text())));
      page.on("pageerror", reject);
      setTimeout(() => reject(new Error("the page prints nothing")), 20_000).unref();
    });
    await page.goto(args[1]);
    process.stdout.write(await line);
  } finally {
    await browser.close();
  }
} else if (verb === "run") {
  const config = JSON.parse(args[1]);
  const browser = await launch(args[0]);
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

function launch(executablePath) {
  return chromium.launch({
    executablePath,
    // The names are those of the routes; a container has no room for the sandbox and
    // little for shared memory.
    args: ["--host-resolver-rules=MAP *.test 127.0.0.1", "--no-sandbox", "--disable-dev-shm-usage"],
  });
}
