// What programs that use the clients of Node.js do with a server: search_clients.cjs CLIENT PORT USER PASSWORD.
//
// CLIENT is es7, es8, opensearch, winston or pino. Ends with 0 if each answer was as it should be.
const assert = require("assert");
const { once } = require("events");

const [name, port, user, password] = process.argv.slice(2);
const node = `http://127.0.0.1:${port}`;
const auth = { username: user, password };
const INDEX = `${name}-calls`;
const EVENTS = 500;

function connect() {
  if (name === "opensearch") {
    const { Client } = require("@opensearch-project/opensearch");
    return new Client({ node: node.replace("//", `//${user}:${password}@`) });
  }
  const { Client } = require(name === "es8" ? "es8" : "es7");
  return new Client({ node, auth });
}

// 8.x returns the body itself, the others an object with it.
const body = (answer) => answer.body ?? answer;
// 8.x takes the members of the body as arguments.
const request = (more, of) => (name === "es8" ? { ...more, ...of } : { ...more, body: of });

function event(n) {
  return { "@timestamp": new Date(1796000000000 + n * 1000).toISOString(), destNum: `+4477009000${n % 100}`, n };
}

async function talk(client) {
  assert.strictEqual(body(await client.info()).version.number, "7.17.29");
  const mappings = { properties: { "@timestamp": { type: "date" }, n: { type: "long" } } };
  assert.ok(body(await client.indices.create(request({ index: INDEX }, { mappings }))).acknowledged);
  const events = [...Array(EVENTS).keys()].map(event);
  const action = (document) => [{ index: { _index: INDEX, _id: String(document.n) } }, document];
  const done = await client.helpers.bulk({ datasource: events, onDocument: (document) => action(document)[0] });
  assert.deepStrictEqual([done.total, done.failed], [EVENTS, 0]);
  await client.indices.refresh({ index: INDEX });
  assert.strictEqual(body(await client.count({ index: INDEX })).count, EVENTS);

  // All documents, page by page.
  const seen = [];
  const all = request({ index: INDEX, size: 120 }, { query: { match_all: {} } });
  for await (const document of client.helpers.scrollDocuments(all)) seen.push(document.n);
  assert.deepStrictEqual(seen.sort((a, b) => a - b), events.map((one) => one.n));

  // Several searches at once, as the helper sends them.
  const many = client.helpers.msearch({ operations: 2 });
  const found = await Promise.all([1, 2, 3].map((n) => many.search({ index: INDEX }, { query: { term: { n } } })));
  many.stop();
  assert.deepStrictEqual(found.map((one) => one.documents.map((document) => document.n)), [[1], [2], [3]]);

  const two = await client.mget(request({ index: INDEX }, { ids: ["7", "nothing"] }));
  assert.deepStrictEqual(body(two).docs.map((document) => document.found), [true, false]);
  const exists = body(await client.indices.existsTemplate({ name: "nothing" }));
  assert.strictEqual(exists, false);
  await client.close();
}

async function log() {
  if (name === "winston") {
    const winston = require("winston");
    const { ElasticsearchTransport } = require("winston-elasticsearch");
    const transport = new ElasticsearchTransport({ level: "info", clientOpts: { node, auth }, indexPrefix: "winston" });
    const logger = winston.createLogger({ transports: [transport] });
    logger.on("error", (error) => { throw error; });
    transport.on("error", (error) => { throw error; });
    for (let n = 0; n < 3; n++) logger.info(`call ${n}`, { n });
    await new Promise((resolve) => setTimeout(resolve, 100));
    await transport.flush();
    logger.end();
    await once(transport, "finish").catch(() => {});
  } else {
    const pino = require("pino");
    const stream = require("pino-elasticsearch")({ index: "pino", node, auth, esVersion: 7, flushBytes: 100 });
    stream.on("insertError", (error) => { throw error; });
    const logger = pino({ level: "info" }, stream);
    for (let n = 0; n < 3; n++) logger.info({ n }, `call ${n}`);
    stream.end();
    await once(stream, "close").catch(() => {});
  }
  // The transports send in the background.
  const { Client } = require("es7");
  const client = new Client({ node, auth });
  const deadline = Date.now() + 60000;
  for (;;) {
    const { count } = body(await client.count({ index: `${name}*`, allow_no_indices: true }));
    if (count === 3) break;
    assert.ok(Date.now() < deadline, `${count} of 3 messages`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  process.exit(0);
}

const run = name === "winston" || name === "pino" ? log() : talk(connect());
run.catch((error) => {
  console.error(error, error.meta && JSON.stringify(error.meta.body));
  process.exit(1);
});
