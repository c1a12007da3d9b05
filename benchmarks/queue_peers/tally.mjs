// Counts jobs in the worker process itself and reports once the last one was begun: tally.py for Node.

const jobs = Number(process.env.BENCH_JOBS ?? 0);
const waits = process.env.BENCH_MODE === "latency" ? [] : null;
let done = 0;
let first = 0;
let firstUsed;

const now = () => (performance.timeOrigin + performance.now()) / 1000;

const say = (report) => process.stdout.write(`${JSON.stringify(report)}\n`);

export function note(putAt) {
  done += 1;
  if (waits) waits.push(now() - putAt);
  if (done === 1) {
    first = now();
    firstUsed = process.cpuUsage();
    if (waits) say({ begun: first });
  }
  if (done === jobs) {
    const { user, system } = process.cpuUsage(firstUsed);
    say({ first, last: now(), used: (user + system) / 1e6, waits });
  }
}

export function* listBatches(count, size) {
  for (let begin = 0; begin < count; begin += size) {
    yield Array.from({ length: Math.min(size, count - begin) }, () => ({ at: now() }));
  }
}

export async function produce(rate, seconds, put) {
  const begin = now();
  for (let number = 0; number < rate * seconds; number += 1) {
    const wait = begin + number / rate - now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    await put({ at: now() });
  }
}
