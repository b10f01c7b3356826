// Runs every scenario with one client version over one transport:
//   node clients.mjs <url> <client> <transport> [msgpack]
// Prints a line per scenario. The status is 1 if any failed; the last line then names them.
import { SCENARIOS } from "./scenarios.mjs";
import { Stage, within } from "./peer.mjs";

/// No scenario takes more than a second or two on an idle machine.
const SCENARIO_WITHIN_MS = 20_000;

/// After so many failures the rest is not tried: something basic is broken, and each failure may cost its deadline.
const FAILURES_MAX = 5;

const [url, client, transport, parser] = process.argv.slice(2);
const only = process.env.SCENARIO;
const failed = [];

for (const { name, run, lacks = {} } of SCENARIOS) {
  if (only && !name.includes(only)) continue;
  if (failed.length === FAILURES_MAX) {
    console.log("the rest was not tried");
    break;
  }
  const reason = [client, client.split("-")[0], transport, parser].map((key) => lacks[key]).find(Boolean);
  if (reason) {
    console.log(`   n/a      ${name}: ${reason}`);
    continue;
  }
  const stage = new Stage({ url, client, transport, parser: parser && `socket.io-${parser}-parser` });
  const started = performance.now();
  const took = () => `${Math.round(performance.now() - started)} ms`.padStart(8);
  try {
    await within(run(stage), "the scenario", SCENARIO_WITHIN_MS);
    console.log(`    ok ${took()}  ${name}`);
  } catch (error) {
    console.log(`FAILED ${took()}  ${name}\n${error.stack ?? error}`);
    failed.push(name);
  } finally {
    stage.end();
  }
}

if (failed.length > 0) console.log(`failed with ${client} over ${transport}: ${failed.join("; ")}`);
process.exit(failed.length > 0 ? 1 : 0);
