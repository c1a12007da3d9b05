// graphile-worker: `fill JOBS`, `work`, `produce RATE SECONDS`. BENCH_LOCAL_QUEUE=500: with the settings of its own
// performance page (local queue, batched completion); else as it comes, with the same concurrency.

import { createRequire } from "node:module";
import { listBatches, note, produce } from "./tally.mjs";

// Packages are not installed beside this file.
const require = createRequire(process.env.BENCH_MODULES);
const { makeWorkerUtils, run, Logger } = require("graphile-worker");

const CONCURRENCY = 24;
const connectionString = process.env.DATABASE_URL;
const logger = new Logger(() => () => {});
const batching = process.env.BENCH_LOCAL_QUEUE
  ? { localQueue: { size: Number(process.env.BENCH_LOCAL_QUEUE), refetchDelay: { durationMs: 10 } }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
  : {};
const preset = {
  worker: { connectionString, concurrentJobs: CONCURRENCY, maxPoolSize: CONCURRENCY + 1, ...batching },
};

const [what, ...numbers] = process.argv.slice(2);
if (what === "work") {
  const taskList = {
    noop: async (payload) => {
      note(payload.at);
    },
  };
  const runner = await run({ preset, logger, taskList });
  await runner.promise;
} else {
  const utils = await makeWorkerUtils({ connectionString, logger });
  if (what === "fill") {
    await utils.migrate();
    for (const batch of listBatches(Number(numbers[0]), 10000)) {
      await utils.addJobs(batch.map((payload) => ({ identifier: "noop", payload })));
    }
  } else {
    await produce(Number(numbers[0]), Number(numbers[1]), (payload) => utils.addJob("noop", payload));
  }
  await utils.release();
}
