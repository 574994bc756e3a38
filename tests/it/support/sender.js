// Sends a file as records with KafkaJS: broker, topic, stream name, file, bytes per record, codec.
const { readFileSync } = require('fs')
const { Kafka, CompressionCodecs, CompressionTypes, logLevel } = require('kafkajs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const [broker, topic, name, file, chunkBytes, codec] = process.argv.slice(2)
const compression = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }[codec]
const content = readFileSync(file)
const messages = []
for (let at = 0; at < content.length; at += Number(chunkBytes)) {
  const data = content.subarray(at, at + Number(chunkBytes)).toString('base64')
  messages.push({ key: name, value: JSON.stringify({ interceptionfilename: name, data }) })
}

async function main() {
  const producer = new Kafka({ brokers: [broker], logLevel: logLevel.ERROR }).producer()
  await producer.connect()
  await producer.send({ topic, compression, messages })
  await producer.disconnect()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
