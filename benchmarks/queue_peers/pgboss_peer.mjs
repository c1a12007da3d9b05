// pg-boss: `fill JOBS`, `work`, `produce RATE SECONDS`. Fetches in batches, at once again while batches are full, and
// is woken by NOTIFY.

import { createRequire } from "node:module";
import { listBatches, note, produce } from "./tally.mjs";

// Packages are not installed beside this file.
const require = createRequire(process.env.BENCH_MODULES);
const { PgBoss } = require("pg-boss");

const BATCH = Number(process.env.BENCH_BATCH ?? 1000);
const CONCURRENCY = Number(process.env.BENCH_CONCURRENCY ?? 2);
const [what, ...numbers] = process.argv.slice(2);
const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, useListenNotify: what === "work" });
boss.on("error", (error) => console.error(error));
await boss.start();

if (what === "work") {
  const options = {
    batchSize: BATCH,
    localConcurrency: CONCURRENCY,
    burstWhenBatchFull: true,
    pollingIntervalSeconds: 0.5,
  };
  await boss.work("noop", options, async (jobs) => {
    for (const job of jobs) note(job.data.at);
  });
} else {
  if (what === "fill") {
    await boss.createQueue("noop", { notify: true });
    for (const batch of listBatches(Number(numbers[0]), 5000)) {
      await boss.insert("noop", batch.map((data) => ({ data })));
    }
  } else {
    await produce(Number(numbers[0]), Number(numbers[1]), (data) => boss.send("noop", data));
  }
  await boss.stop();
}
