// Dapr's JavaScript SDK in gRPC mode as publisher and as user of an output binding: takes the node's API port; prints one JSON object
// with the answers.
import { CommunicationProtocolEnum, DaprClient } from "@dapr/dapr";

const [daprPort] = process.argv.slice(2);
const client = new DaprClient({
  daprHost: "127.0.0.1",
  daprPort,
  communicationProtocol: CommunicationProtocolEnum.GRPC,
});
const seen = {};
const publish = (topic, data, metadata = {}) => client.pubsub.publish("pubsub", topic, data, { metadata });

await publish("plain", { n: 1 });
await publish("plain", "text");
await client.pubsub.publish("pubsub", "plain", { specversion: "1.0", id: "whole", type: "t", source: "s", data: { n: 2 } }, {
  contentType: "application/cloudevents+json",
});
await publish("retried", "once more");
await publish("dropped", "not wanted");
await publish("routed", { n: 3 }, { "cloudevent.type": "widget" });
await publish("routed", { n: 4 });
seen.bulk = await client.pubsub.publishBulk("pubsub", "many", [{ n: 5 }, "six", { n: 7 }]);
seen.ghost = await client.pubsub.publishBulk("ghost", "many", ["x"]);
try {
  await client.pubsub.publish("ghost", "plain", "x");
} catch (error) {
  seen.unknown = String(error.error?.message ?? error);
}
const stored = await client.binding.send("files", "create", "from javascript", { fileName: "js.txt" });
seen.stored = Buffer.from(stored.data).toString();
seen.read = Buffer.from((await client.binding.send("files", "get", undefined, { fileName: "js.txt" })).data).toString();
try {
  await client.binding.send("ghost", "create", "x");
} catch (error) {
  seen.noBinding = String(error.message ?? error);
}
await client.stop();
console.log(JSON.stringify(seen));
