// The application of the JavaScript SDK's tests, over gRPC: takes its port and the node's; prints every event as a line of JSON.
import { CommunicationProtocolEnum, DaprPubSubStatusEnum, DaprServer } from "@dapr/dapr";

const [port, daprPort] = process.argv.slice(2);
const server = new DaprServer({
  serverHost: "127.0.0.1",
  serverPort: port,
  communicationProtocol: CommunicationProtocolEnum.GRPC,
  clientOptions: { daprHost: "127.0.0.1", daprPort, communicationProtocol: CommunicationProtocolEnum.GRPC },
});
const asked = new Set();
const note = (handler, data) => console.log(JSON.stringify({ handler, data }));

await server.pubsub.subscribe("pubsub", "plain", async (data) => note("plain", data));
await server.pubsub.subscribeWithOptions("pubsub", "retried", {
  callback: async (data) => {
    note("retried", data);
    if (asked.has(data)) return DaprPubSubStatusEnum.SUCCESS;
    asked.add(data);
    return DaprPubSubStatusEnum.RETRY;
  },
});
await server.pubsub.subscribeWithOptions("pubsub", "dropped", {
  deadLetterTopic: "dead",
  callback: async (data) => {
    note("dropped", data);
    return DaprPubSubStatusEnum.DROP;
  },
});
await server.pubsub.subscribe("pubsub", "dead", async (data) => note("dead", data));
const routes = { default: "rest", rules: [{ match: `event.type == "widget"`, path: "widgets" }] };
await server.pubsub.subscribeWithOptions("pubsub", "routed", { route: routes });
server.pubsub.subscribeToRoute("pubsub", "routed", "widgets", async (data) => note("widgets", data));
server.pubsub.subscribeToRoute("pubsub", "routed", "rest", async (data) => note("rest", data));
await server.pubsub.subscribeBulk("pubsub", "many", async (data) => note("bulk", data), {
  maxMessagesCount: 10,
  maxAwaitDurationMs: 200,
});
await server.binding.receive("tick", async (data) => note("tick", data));
console.log("starting");
await server.start();
